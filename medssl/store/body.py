"""Where the patient is in a scan, so that crops can avoid the air around."""

from typing import Any

import numpy as np
import numpy.typing as npt

Box = tuple[tuple[int, int, int], tuple[int, int, int]]

# Half-way between air (-1000 HU) and soft tissue; lungs lie inside the box of the body anyway.
CT_BODY_HU = -500.0
# Without a physical scale: a tenth of the way from the darkest to the brightest voxels, above the noise of air in MR.
DARK_PERCENTILE, BRIGHT_PERCENTILE, BODY_SHARE = 0.5, 99.5, 0.1
# A coarse cell counts as body from this share of body voxels on: single noisy voxels, couch and coil wires do not.
CELL_VOXELS, CELL_SHARE = 4, 0.25


def body_mask(voxels: npt.NDArray[Any], modality: str) -> npt.NDArray[np.bool_]:
    """Voxels of the patient: above -500 HU in CT, above a tenth of the intensity range in all other modalities."""
    if modality == "CT":
        return np.asarray(voxels > CT_BODY_HU)
    dark, bright = np.percentile(_thinned(voxels), [DARK_PERCENTILE, BRIGHT_PERCENTILE])
    return np.asarray(voxels > dark + BODY_SHARE * (bright - dark))


def body_box(voxels: npt.NDArray[Any], modality: str) -> Box:
    """Smallest box (start, stop), in the array's axis order, around the coarse cells that hold body; the whole scan
    where none does.
    """
    cells = coarse_mask(body_mask(voxels, modality))
    shape = voxels.shape
    if not cells.any():
        return (0, 0, 0), (shape[0], shape[1], shape[2])
    start, stop = [0, 0, 0], list(shape)
    for axis in range(3):
        filled = np.flatnonzero(cells.any(axis=tuple(a for a in range(3) if a != axis)))
        start[axis] = int(filled[0]) * CELL_VOXELS
        stop[axis] = min(shape[axis], (int(filled[-1]) + 1) * CELL_VOXELS)
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def coarse_mask(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask on cells of 4 x 4 x 4 voxels (the last ones of an axis may be thinner): true from a quarter of body
    voxels on.
    """
    counts, sizes = mask.astype(np.float32), np.ones(mask.shape, np.float32)
    for axis in range(3):
        edges = np.arange(0, mask.shape[axis], CELL_VOXELS)
        counts = np.add.reduceat(counts, edges, axis=axis)
        sizes = np.add.reduceat(sizes, edges, axis=axis)
    return np.asarray(counts >= CELL_SHARE * sizes)


def _thinned(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every n-th voxel of a large scan; percentiles of a million voxels are as good as those of all."""
    every = max(1, round((voxels.size / 1_000_000) ** (1 / 3)))
    return voxels[::every, ::every, ::every]
