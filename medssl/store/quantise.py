"""Physical units as 16-bit integers: value = stored x scale + offset."""

from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.store.percentiles import dark_and_bright

LOWEST, HIGHEST = -32768, 32767
# Levels between the darkest and the brightest half per cent: 12 bits, what scanners digitise. More bits would store
# noise.
LEVELS = 4095


def quantisation(voxels: npt.NDArray[Any], modality: str, keep: tuple[float, float]) -> tuple[float, float]:
    """(scale, offset) of a scan, of which at least the values from keep[0] to keep[1] must stay distinct.

    Whole numbers that fit 16 bits are stored unchanged, and so is CT (rounded to 1 HU). All others get 4096 levels
    between the darkest and the brightest half per cent, and 65536 in all. Values beyond those, such as a hot voxel in a
    map of ratios, are clipped, since stretching the range would leave few levels for all others.
    """
    low, high = float(voxels.min()), float(voxels.max())
    fits = low >= LOWEST and high <= HIGHEST
    if fits and (
        modality == "CT" or np.issubdtype(voxels.dtype, np.integer) or bool(np.all(voxels == np.rint(voxels)))
    ):
        return 1.0, 0.0
    if high == low:
        return 1.0, low
    dark, bright = dark_and_bright(voxels[:: max(1, voxels.shape[0] // 128)])
    first, last = min(dark, keep[0]), max(bright, keep[1])
    if first == last:
        first, last = low, high
    scale = max((bright - dark) / LEVELS, (last - first) / (HIGHEST - LOWEST))
    # From zero upwards where the range allows: the upper byte then hardly changes and packs well.
    if (high - low) / scale <= HIGHEST:
        return scale, low
    # Otherwise centre the levels on the values to keep, without leaving the scan's own range at either end.
    span = (HIGHEST - LOWEST) * scale
    bottom = max(low, min((first + last - span) / 2, high - span))
    return scale, bottom - LOWEST * scale


def quantised(voxels: npt.NDArray[Any], *, scale: float, offset: float) -> npt.NDArray[np.int16]:
    """Nearest stored number of each voxel."""
    if np.issubdtype(voxels.dtype, np.integer) and (scale, offset) == (1.0, 0.0):
        return voxels.astype(np.int16)
    levels = np.rint((voxels.astype(np.float64) - offset) / scale)
    return np.clip(levels, LOWEST, HIGHEST).astype(np.int16)
