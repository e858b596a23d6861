"""Separable resampling along the axes of an array: the grids of a store and of its scan differ by flips, swaps and
spacing only.

Linear interpolation. For a coarser grid the triangle is widened to the new spacing, so fine detail is averaged and not
aliased. Beyond the first and the last voxel centre, the edge voxel is repeated.
"""

import numpy as np
import numpy.typing as npt


def resample_axis(
    array: npt.NDArray[np.generic], axis: int, positions_voxels: npt.NDArray[np.float64], *, nearest: bool
) -> npt.NDArray[np.generic]:
    """`array` sampled along one axis at `positions_voxels` (N,), in voxels of that axis; float32, or the same type
    if `nearest`.
    """
    length = array.shape[axis]
    if nearest:
        index = np.clip(np.floor(positions_voxels + 0.5).astype(np.int64), 0, length - 1)
        return np.take(array, index, axis=axis)
    index, weights = _taps(length, positions_voxels)
    along = [1] * array.ndim
    along[axis] = -1
    out = np.zeros([len(positions_voxels) if a == axis else n for a, n in enumerate(array.shape)], np.float32)
    for tap in range(index.shape[1]):
        out += np.take(array, index[:, tap], axis=axis) * weights[:, tap].reshape(along)
    return out


def _taps(
    length: int, positions_voxels: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """(N, T) voxel indices and weights (rows sum to 1, offsets average to 0) of a triangle as wide as the step between
    positions, at least one voxel.
    """
    step = abs(float(positions_voxels[1] - positions_voxels[0])) if len(positions_voxels) > 1 else 1.0
    width = max(1.0, step)
    radius = int(np.ceil(width))
    index = np.floor(positions_voxels).astype(np.int64)[:, None] + np.arange(1 - radius, radius + 1)
    offset = index - positions_voxels[:, None]
    weights = np.maximum(0.0, 1.0 - np.abs(offset) / width)
    # Tilt the weights so that the weighted mean of the offsets is zero: a ramp then stays a ramp, and nothing shifts.
    # With moments m0, m1, m2 of the triangle, weights * (1 + t * offset) have the mean m1 + t * m2, hence t = -m1 / m2.
    m0, m1, m2 = (weights.sum(axis=1), (weights * offset).sum(axis=1), (weights * offset**2).sum(axis=1))
    tilt = np.divide(-m1, m2, out=np.zeros_like(m1), where=m2 > 1e-12)
    weights *= 1.0 + tilt[:, None] * offset
    weights /= (m0 + tilt * m1)[:, None]
    return np.clip(index, 0, length - 1), weights.astype(np.float32)
