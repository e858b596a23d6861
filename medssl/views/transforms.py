"""Batched transforms under MONAI's names and parameters: one call for a batch on the device, each sample with its own
draw.

They are MONAI transforms (`RandomizableTransform`, `set_random_state`), take (B, C, D, H, W) and agree with MONAI's
own at batch size 1. Random numbers come from the `SampleRandom` of a region, so that they belong to the sample and
not to the order of calls; called without, a transform draws from its own state, as MONAI's do. What happens to which
sample is decided on the host; nothing the size of a volume leaves the device, and nothing is written to the input.

This module imports monai, which takes seconds: a task that uses it imports it where it makes its views.
"""

from medssl.views.artefacts import (
    BatchRandBiasField,
    BatchRandGaussianNoise,
    BatchRandGaussianSmooth,
    BatchRandGibbsNoise,
    BatchRandRicianNoise,
    BatchRandSimulateLowResolution,
)
from medssl.views.batch import BatchCompose, BatchTransform
from medssl.views.brightness import (
    BatchRandAdjustContrast,
    BatchRandHistogramShift,
    BatchRandScaleIntensity,
    BatchRandShiftIntensity,
    BatchRandWindow,
)
from medssl.views.spatial import BatchRandAffine

__all__ = [
    "BatchCompose",
    "BatchRandAdjustContrast",
    "BatchRandAffine",
    "BatchRandBiasField",
    "BatchRandGaussianNoise",
    "BatchRandGaussianSmooth",
    "BatchRandGibbsNoise",
    "BatchRandHistogramShift",
    "BatchRandRicianNoise",
    "BatchRandScaleIntensity",
    "BatchRandShiftIntensity",
    "BatchRandSimulateLowResolution",
    "BatchRandWindow",
    "BatchTransform",
]
