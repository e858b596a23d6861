"""Numbers that bring a scan's intensities to a common scale, the same at training and at prediction."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medssl.geometry import Volume
from medssl.store.body import body_mask
from medssl.store.percentiles import dark_and_bright, thinned

# Fixed for CT, so that a value means the same tissue in every scan: air to dense bone. Centred on water; 400 HU makes
# fat, muscle and enhanced vessels spread over about one unit.
CT_LOW_HU, CT_HIGH_HU, CT_MEAN_HU, CT_STD_HU = -1000.0, 1000.0, 0.0, 400.0
# Statistics of a large scan are taken from about this many voxels.
STATISTICS_VOXELS = 2_000_000


@dataclass(frozen=True)
class Normalisation:
    """v becomes (clip(v, low, high) - mean) / std; all four in the scan's physical units."""

    low: float
    high: float
    mean: float
    std: float

    def apply(self, voxels: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Normalised voxels, float32; with the arithmetic that `Region` uses on the device."""
        clipped = np.clip(voxels.astype(np.float32), np.float32(self.low), np.float32(self.high))
        return ((clipped - np.float32(self.mean)) / np.float32(self.std)).astype(np.float32)

    @property
    def pad_value(self) -> float:
        """Normalised value of `low`, which stands for everything outside the scan."""
        return (self.low - self.mean) / self.std


def normalisation_of(volume: Volume, modality: str) -> Normalisation:
    """A fixed window in HU for CT; for other modalities percentiles, mean and standard deviation over the body."""
    if modality == "CT":
        return Normalisation(CT_LOW_HU, CT_HIGH_HU, CT_MEAN_HU, CT_STD_HU)
    voxels = thinned(volume.voxels, remaining=STATISTICS_VOXELS)
    body = voxels[body_mask(voxels, modality)].astype(np.float64)
    if body.size == 0:
        body = voxels.astype(np.float64).ravel()
    low, high = dark_and_bright(body)
    inside = np.clip(body, low, high)
    std = float(inside.std())
    # A constant scan has no scale: a standard deviation of 1 maps it to zero. The threshold is relative to the values,
    # since a diffusivity in m2/s varies by a billionth.
    varies = std > 1e-6 * max(abs(low), abs(high))
    return Normalisation(low, high, float(inside.mean()), std if varies else 1.0)
