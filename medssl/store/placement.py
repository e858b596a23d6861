"""Where and how one crop is taken from a scan: the affine from patch voxels to scan voxels.

All in tensor order (D, H, W). A matrix is (3, 4): scan voxel = matrix @ (patch voxel, 1). It is composed, from the
patch outwards, of flips and quarter turns, zoom and stretch, the rotation in millimetres (so that an anisotropic scan
is turned and not sheared), and the place of the window.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from medssl.errors import ConfigError
from medssl.randomness import generator
from medssl.store.centres import centre_limits, draw_centre
from medssl.store.crops import Crop
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
            centre = middle + draw.uniform(-crop.reach, crop.reach, 3) * anchor_extent
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


def corners(matrix: Matrix, size: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """(8, 3) scan voxels of the patch's corner voxels."""
    ends = np.array([[d, h, w, 1.0] for d in (0, size[0] - 1) for h in (0, size[1] - 1) for w in (0, size[2] - 1)])
    return np.asarray(ends @ matrix.T)


def _draw_linear(
    crop: Crop, spacing_mm: tuple[float, float, float], draw: np.random.Generator
) -> tuple[Matrix, Matrix]:
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
