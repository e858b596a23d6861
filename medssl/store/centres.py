"""Where the middle of a crop lies: on a label, in the body, or anywhere in the box around the body."""

import numpy as np
import numpy.typing as npt

from medssl.store.body import BodyMask
from medssl.store.volumes import StoredVolume

Vector = npt.NDArray[np.float64]

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
