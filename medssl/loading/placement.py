"""Where and how one crop is taken from a scan: the affine from patch voxels to scan voxels.

All in tensor order (D, H, W). A matrix is (3, 4): scan voxel = matrix @ (patch voxel, 1). It is composed, from the
patch outwards, of flips and quarter turns, zoom and stretch, the rotation in millimetres (so that an anisotropic scan
is turned and not sheared), and the place of the window.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from medssl.errors import ConfigError
from medssl.loading.crops import Crop
from medssl.randomness import generator
from medssl.shapes import Shape3D, Spacing3D
from medssl.store.body import BodyMask
from medssl.store.volumes import StoredVolume

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
# A quarter turn in the H-W plane.
QUARTER_TURN = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def draw_crops(
    scan: StoredVolume, crops: Mapping[str, Crop], *, seed: int, number: int, foreground: float, in_body: float = 0.0
) -> dict[str, Matrix]:
    """One (3, 4) matrix per crop, a function of (seed, number) and the scan alone.

    foreground, in_body: chances of `draw_centre`.
    """
    centres: dict[str, tuple[Vector, Vector]] = {}
    matrices = {}
    for name in anchored_order(crops):
        crop = crops[name]
        draw = generator(seed, number, f"crop/{name}")
        upright, linear = _draw_linear(crop, scan.spacing_mm, draw)
        size = np.array(crop.size, np.float64)
        extent = np.abs(upright) @ size
        if crop.anchor is None:
            centre = draw_centre(
                scan, extent, draw, foreground=foreground, in_body=in_body, whole_voxels=_is_unit(linear)
            )
        else:
            middle, anchor_extent = centres[crop.anchor]
            centre = middle + draw.uniform(-crop.max_offset, crop.max_offset, 3) * anchor_extent
            low, high = centre_limits(np.array(scan.shape, np.float64), extent)
            centre = np.clip(centre, low, high)
        matrices[name] = _matrix(linear, centre, size)
        centres[name] = matrices[name] @ np.append((size - 1) / 2, 1.0), extent
    return matrices


def anchored_order(crops: Mapping[str, Crop]) -> list[str]:
    """Names with every anchor before what hangs on it. Raises ConfigError for an unknown anchor or a circle."""
    order: list[str] = []
    while len(order) < len(crops):
        ready = [n for n, c in crops.items() if n not in order and (c.anchor is None or c.anchor in order)]
        if not ready:
            stuck = {n: c.anchor for n, c in crops.items() if n not in order}
            raise ConfigError(
                f"crops hang on anchors that do not exist or on each other: {stuck}. Known crops: {', '.join(crops)}."
            )
        order += ready
    return order


def is_exact(matrix: Matrix) -> bool:
    """Whether the patch is a window of whole voxels, mirrored or turned by quarter turns at most: it can be sliced."""
    return _is_unit(matrix[:, :3]) and bool((matrix[:, 3] == np.rint(matrix[:, 3])).all())


def _is_unit(linear: Matrix) -> bool:
    """Whether the linear part only mirrors and swaps axes."""
    return bool(np.isin(linear, (-1.0, 0.0, 1.0)).all() and (np.abs(linear).sum(axis=0) == 1).all())


def corners(matrix: Matrix, size: Shape3D) -> npt.NDArray[np.float64]:
    """(8, 3) scan voxels of the patch's corner voxels."""
    ends = np.array([[d, h, w, 1.0] for d in (0, size[0] - 1) for h in (0, size[1] - 1) for w in (0, size[2] - 1)])
    return np.asarray(ends @ matrix.T)


def _draw_linear(crop: Crop, spacing_mm: Spacing3D, draw: np.random.Generator) -> tuple[Matrix, Matrix]:
    """(3, 3) part of the matrix, without and with the rotation.

    Every number is drawn whether it is used or not: settings do not shift each other's streams.
    """
    happens = draw.random() < crop.probability
    angles = np.deg2rad(draw.uniform(-1.0, 1.0, 3) * np.array(crop.rotation_deg))
    zoom = np.exp(draw.uniform(*np.log(crop.zoom))) * crop.stretch ** draw.uniform(-1.0, 1.0, 3)
    mirrored = draw.random(3) < np.array(crop.flip)
    turns = int(draw.integers(4))
    linear = np.diag(np.where(mirrored, -1.0, 1.0))
    if crop.rotate90:
        linear = np.linalg.matrix_power(QUARTER_TURN, turns) @ linear
    if not happens:
        return linear, linear
    linear = np.diag(1.0 / zoom) @ linear
    if not angles.any():
        return linear, linear
    to_mm = np.diag(spacing_mm)
    return linear, np.linalg.inv(to_mm) @ rotation(angles) @ to_mm @ linear


def rotation(angles_rad: Vector) -> Matrix:
    """(3, 3) rotation by three angles about D, then H, then W, in (D, H, W) coordinates."""
    out = np.eye(3)
    for axis, angle in enumerate(angles_rad):
        i, j = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    return out


def _matrix(linear: Matrix, centre: Vector, size: Vector) -> Matrix:
    """(3, 4) with the patch's middle on `centre`; windows without rotation or zoom are moved onto whole voxels."""
    shift = centre - linear @ ((size - 1) / 2)
    if _is_unit(linear):
        shift = np.rint(shift)
    return np.concatenate([linear, shift[:, None]], axis=1)


# How far, as a share of the patch, a window may leave the box of the body (never the scan): voxels at its rim are then
# seen nearly as often as those in its middle.
OVERHANG = 0.25


def draw_centre(
    scan: StoredVolume,
    extent: Vector,
    draw: np.random.Generator,
    *,
    foreground: float,
    in_body: float,
    whole_voxels: bool,
) -> Vector:
    """Centre of a window of `extent` voxels (D, H, W) in scan voxels: on a labelled voxel with the chance
    `foreground`, else in a cell of the body mask with the chance `in_body`, else where it overlaps the body's box.

    whole_voxels: the window will be rounded to whole voxels, so half a voxel more at both ends keeps the first and
    last place as likely.
    """
    shape = np.array(scan.shape, np.float64)
    low, high = centre_limits(shape, extent)
    on_label, share = draw.random() < foreground, draw.random(3)
    which, voxel = draw.random(2)
    on_body, cell = draw.random(2)
    if on_label and scan.class_voxels:
        values = sorted(scan.class_voxels)
        places = scan.class_voxels[values[int(which * len(values))]]
        place = places[int(voxel * len(places))].astype(np.float64)
        if whole_voxels:  # an even window has no middle voxel: without this it would lie on even voxels only
            place, low, high = place + share - 0.5, low - 0.5, high + 0.5
        return np.asarray(np.clip(place, low, high))
    body_low = np.array(scan.body_box[0]) - 0.5 + extent * (0.5 - OVERHANG)
    body_high = np.array(scan.body_box[1]) - 0.5 - extent * (0.5 - OVERHANG)
    body_low, body_high = np.minimum(body_low, body_high), np.maximum(body_low, body_high)
    low, high = np.clip(body_low, low, high), np.clip(body_high, low, high)
    margin = 0.5 if whole_voxels else 0.0
    if on_body < in_body and scan.body_mask is not None:
        within = _in_mask(scan.body_mask, low - 0.5, high + 0.5, cell, share)
        if within is not None:
            return np.clip(within, low - margin, high + margin)
    return low - margin + share * (high - low + 2 * margin)


def centre_limits(shape: Vector, extent: Vector) -> tuple[Vector, Vector]:
    """Lowest and highest centre of a window that stays in the scan or, where it is larger, covers the scan."""
    a, b = extent / 2 - 0.5, shape - extent / 2 - 0.5
    return np.minimum(a, b), np.maximum(a, b)


def _in_mask(mask: BodyMask, low: Vector, high: Vector, cell: float, share: Vector) -> Vector | None:
    """A place in the body between `low` and `high`, every one as likely; None where no cell of the mask lies there.

    cell, share: numbers in [0, 1) that decide.
    """
    from_to = []
    for axis, (count, edge) in enumerate(zip(mask.shape, mask.edges, strict=True)):
        faces = np.arange(count + 1) * float(edge) - 0.5
        from_to.append(np.clip(np.stack([faces[:-1], faces[1:]]), low[axis], high[axis]))
    d, h, w = (ends[1] - ends[0] for ends in from_to)
    volumes = (mask.cells * d[:, None, None] * h[:, None] * w).ravel().cumsum()
    if volumes[-1] <= 0:
        return None
    at = min(int(np.searchsorted(volumes, cell * volumes[-1], side="right")), len(volumes) - 1)
    chosen = np.unravel_index(at, mask.shape)
    start, stop = np.array([ends[:, index] for ends, index in zip(from_to, chosen, strict=True)]).T
    return np.asarray(start + share * (stop - start))
