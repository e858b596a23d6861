"""Numbers that bring a scan's intensities to a common scale, the same at training and at prediction."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medssl.geometry import Volume
from medssl.store.body import body_mask

# Fixed for CT, so that a value means the same tissue in every scan: air to dense bone. Centred on water; 400 HU makes
# fat, muscle and enhanced vessels spread over about one unit.
CT_LOW_HU, CT_HIGH_HU, CT_MEAN_HU, CT_STD_HU = -1000.0, 1000.0, 0.0, 400.0
# The percentiles of nnU-Net's CT scheme, here over the body and for modalities without a physical scale.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
# Percentiles of a large scan are taken from every n-th voxel, so that about this many remain.
ENOUGH_VOXELS = 2_000_000


@dataclass(frozen=True)
class Normalisation:
    """v becomes (clip(v, low, high) - mean) / std; all four in the scan's physical units."""

    low: float
    high: float
    mean: float
    std: float

    def apply(self, voxels: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Normalised voxels, float32; the same arithmetic as `Region` does on the device."""
        clipped = np.clip(voxels.astype(np.float32), np.float32(self.low), np.float32(self.high))
        return ((clipped - np.float32(self.mean)) / np.float32(self.std)).astype(np.float32)

    @property
    def pad_value(self) -> float:
        """What `low` becomes: the value of everything outside the scan."""
        return (self.low - self.mean) / self.std


def normalisation_of(volume: Volume, modality: str) -> Normalisation:
    """Fixed Hounsfield window for CT; for all others percentiles, mean and standard deviation over the body of this
    scan.
    """
    if modality == "CT":
        return Normalisation(CT_LOW_HU, CT_HIGH_HU, CT_MEAN_HU, CT_STD_HU)
    every = max(1, round((volume.voxels.size / ENOUGH_VOXELS) ** (1 / 3)))
    voxels = volume.voxels[::every, ::every, ::every]
    body = voxels[body_mask(voxels, modality)].astype(np.float64)
    if body.size == 0:
        body = voxels.astype(np.float64).ravel()
    low, high = np.percentile(body, [LOW_PERCENTILE, HIGH_PERCENTILE])
    inside = np.clip(body, low, high)
    std = float(inside.std())
    # A constant scan has nothing to scale; 1 keeps it at zero instead of dividing by zero. What is constant follows
    # from the scan's own values: a diffusivity in m2/s varies by a billionth.
    varies = std > 1e-6 * max(abs(low), abs(high))
    return Normalisation(float(low), float(high), float(inside.mean()), std if varies else 1.0)
