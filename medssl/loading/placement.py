"""Where and how one crop is taken from a scan: the affine from patch voxels to scan voxels.

All in tensor order (D, H, W). A matrix is (3, 4): scan voxel = matrix @ (patch voxel, 1). It is composed, from the
patch outwards, of flips and quarter turns, zoom and stretch, the rotation in millimetres (so that an anisotropic scan
is rotated and not sheared), and the position of the window.
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

    foreground, in_body: probabilities of `draw_centre`.
    """
    centres: dict[str, tuple[Vector, Vector]] = {}
    matrices = {}
    for name in anchored_order(crops):
        crop = crops[name]
        draw = generator(seed, number, f"crop/{name}")
        # The window's extent comes from the matrix without the rotation: a rotated patch may look over the edge of the
        # scan with its corners, otherwise large rotations would only ever show the middle of a scan.
        upright, linear = _draw_linear(crop, scan.spacing_mm, draw)
        size = np.array(crop.size, np.float64)
        extent = np.abs(upright) @ size
        if crop.anchor is None:
            exact = _is_unit(linear)
            centre = draw_centre(scan, extent, draw, foreground=foreground, in_body=in_body, whole_voxels=exact)
        else:
            anchor_centre, anchor_extent = centres[crop.anchor]
            centre = anchor_centre + draw.uniform(-crop.max_offset, crop.max_offset, 3) * anchor_extent
            low, high = centre_limits(np.array(scan.shape, np.float64), extent)
            centre = np.clip(centre, low, high)
        matrices[name] = _matrix(linear, centre, size)
        centres[name] = matrices[name] @ np.append((size - 1) / 2, 1.0), extent
    return matrices


def anchored_order(crops: Mapping[str, Crop]) -> list[str]:
    """Names, every anchor before the crops that refer to it. Raises ConfigError for an unknown anchor or a circle."""
    order: list[str] = []
    while len(order) < len(crops):
        placeable = [n for n, c in crops.items() if n not in order and (c.anchor is None or c.anchor in order)]
        if not placeable:
            stuck = {n: c.anchor for n, c in crops.items() if n not in order}
            raise ConfigError(
                f"anchors of crops do not exist or refer to each other: {stuck}. Declared crops: {', '.join(crops)}."
            )
        order += placeable
    return order


def is_exact(matrix: Matrix) -> bool:
    """Whether the patch is a window of whole voxels, at most mirrored or quarter-turned, so that it can be sliced."""
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

    Every number is drawn whether it is used or not, so settings do not shift each other's streams.
    """
    is_applied = draw.random() < crop.probability
    angles = np.deg2rad(draw.uniform(-1.0, 1.0, 3) * np.array(crop.rotation_deg))
    zoom = np.exp(draw.uniform(*np.log(crop.zoom))) * crop.stretch ** draw.uniform(-1.0, 1.0, 3)
    mirrored = draw.random(3) < np.array(crop.flip)
    turns = int(draw.integers(4))
    linear = np.diag(np.where(mirrored, -1.0, 1.0))
    if crop.rotate90:
        linear = np.linalg.matrix_power(QUARTER_TURN, turns) @ linear
    if not is_applied:
        return linear, linear
    linear = np.diag(1.0 / zoom) @ linear
    if not angles.any():
        return linear, linear
    # Rotate in millimetres: to mm, rotate, back to voxels. In voxels, a rotation would shear an anisotropic scan.
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
    """(3, 4) with the patch's middle on `centre`; windows without rotation or zoom are rounded to whole voxels."""
    shift = centre - linear @ ((size - 1) / 2)
    if _is_unit(linear):
        shift = np.rint(shift)
    return np.concatenate([linear, shift[:, None]], axis=1)


# How far, as a fraction of the patch, a window may leave the box of the body (never the scan): voxels at its rim are
# then seen nearly as often as those in its middle.
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
    """Centre of a window, in scan voxels.

    Args:
        scan: that is cut.
        extent: (D, H, W) voxels that the window covers.
        draw: generator of this sample.
        foreground: probability of a centre on a labelled voxel, of a class drawn uniformly.
        in_body: probability, otherwise, of a centre in a cell of the body mask; the remaining ones lie where the window
            overlaps the body's box.
        whole_voxels: whether the window will be rounded to whole voxels; half a voxel more at both ends then keeps the
            first and last position as likely as the others.
    """
    shape = np.array(scan.shape, np.float64)
    low, high = centre_limits(shape, extent)
    # All numbers are drawn first, used or not: one probability does not change what another draws.
    on_label, u = draw.random() < foreground, draw.random(3)
    which, voxel = draw.random(2)
    on_body, cell = draw.random(2)
    if on_label and scan.class_voxels:
        values = sorted(scan.class_voxels)
        voxels = scan.class_voxels[values[int(which * len(values))]]
        centre = voxels[int(voxel * len(voxels))].astype(np.float64)
        if whole_voxels:  # an even window lacks a middle voxel: without this it would lie on even voxels only
            centre, low, high = centre + u - 0.5, low - 0.5, high + 0.5
        return np.asarray(np.clip(centre, low, high))
    # Centres for which at most OVERHANG of the window leaves the body's box. Where the box is smaller than the window,
    # the limits cross: swapped, they are the centres for which the window covers the box.
    body_low = np.array(scan.body_box[0]) - 0.5 + extent * (0.5 - OVERHANG)
    body_high = np.array(scan.body_box[1]) - 0.5 - extent * (0.5 - OVERHANG)
    body_low, body_high = np.minimum(body_low, body_high), np.maximum(body_low, body_high)
    low, high = np.clip(body_low, low, high), np.clip(body_high, low, high)
    margin = 0.5 if whole_voxels else 0.0
    if on_body < in_body and scan.body_mask is not None:
        within = _in_mask(scan.body_mask, low - 0.5, high + 0.5, cell, u)
        if within is not None:
            return np.clip(within, low - margin, high + margin)
    return low - margin + u * (high - low + 2 * margin)


def centre_limits(shape: Vector, extent: Vector) -> tuple[Vector, Vector]:
    """Lowest and highest centre of a window that stays in the scan or, if it is larger, covers the scan."""
    a, b = extent / 2 - 0.5, shape - extent / 2 - 0.5
    return np.minimum(a, b), np.maximum(a, b)


def _in_mask(mask: BodyMask, low: Vector, high: Vector, cell: float, u: Vector) -> Vector | None:
    """A uniform position in the body between `low` and `high`; None if no cell of the mask lies there.

    cell, u: numbers in [0, 1) that choose the cell and the position in it.
    """
    # Cells are clipped to the limits and drawn in proportion to the volume that remains of them: then every position
    # is as likely as any other, and none has to be rejected and drawn again.
    spans = []
    for axis, (count, edge) in enumerate(zip(mask.shape, mask.edges, strict=True)):
        faces = np.arange(count + 1) * float(edge) - 0.5
        spans.append(np.clip(np.stack([faces[:-1], faces[1:]]), low[axis], high[axis]))
    d, h, w = (ends[1] - ends[0] for ends in spans)
    volumes = (mask.cells * d[:, None, None] * h[:, None] * w).ravel().cumsum()
    if volumes[-1] <= 0:
        return None
    flat = min(int(np.searchsorted(volumes, cell * volumes[-1], side="right")), len(volumes) - 1)
    index = np.unravel_index(flat, mask.shape)
    start, stop = np.array([ends[:, i] for ends, i in zip(spans, index, strict=True)]).T
    return np.asarray(start + u * (stop - start))
