"""The percentiles that stand for the darkest and the brightest voxels of a scan, and the voxels they are taken from."""

from typing import Any

import numpy as np
import numpy.typing as npt

# Those of nnU-Net's CT scheme: half a per cent at either end may be a metal implant, a hot voxel or a dead one.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5


def dark_and_bright(voxels: npt.NDArray[Any]) -> tuple[float, float]:
    """The two percentiles of the voxels."""
    dark, bright = np.percentile(voxels, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return float(dark), float(bright)


def thinned(voxels: npt.NDArray[Any], *, remaining: int) -> npt.NDArray[Any]:
    """Every n-th voxel along each axis of a large 3D scan, so that about `remaining` are left.

    Percentiles of a million voxels are as good as those of all, and take a fraction of the time.
    """
    every = max(1, round((voxels.size / remaining) ** (1 / 3)))
    return voxels[::every, ::every, ::every]
