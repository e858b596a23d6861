"""Batched transforms on the device, and the region that a task cuts its views from.

The transforms are MONAI transforms (`RandomizableTransform`, `set_random_state`) under MONAI's names and parameters
with `Batch` before them: one call for a batch (B, C, D, H, W), each sample with its own parameters, and MONAI's results
at batch size 1. Random numbers come from the `SampleRandom` of a region: they belong to the sample, not to the order of
calls. Nothing the size of a volume leaves the device, and nothing is written to the input.

Imports loading, randomness and geometry. Names are imported where they are first used: monai takes seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "BatchCompose": "batch",
    "BatchRandAdjustContrast": "brightness",
    "BatchRandAffine": "spatial",
    "BatchRandBiasField": "artefacts",
    "BatchRandGaussianNoise": "artefacts",
    "BatchRandGaussianSmooth": "artefacts",
    "BatchRandGibbsNoise": "artefacts",
    "BatchRandHistogramShift": "brightness",
    "BatchRandRicianNoise": "artefacts",
    "BatchRandScaleIntensity": "brightness",
    "BatchRandScaleIntensityFixedMean": "brightness",
    "BatchRandShiftIntensity": "brightness",
    "BatchRandSimulateLowResolution": "artefacts",
    "BatchRandWindow": "brightness",
    "BatchTransform": "batch",
    "IntensityChain": "intensity",
    "LogUniform": "batch",
    "PerSample": "adapter",
    "Region": "region",
    "block_mask": "masks",
    "token_mask": "masks",
}

if TYPE_CHECKING:
    from medssl.views.adapter import PerSample
    from medssl.views.artefacts import (
        BatchRandBiasField,
        BatchRandGaussianNoise,
        BatchRandGaussianSmooth,
        BatchRandGibbsNoise,
        BatchRandRicianNoise,
        BatchRandSimulateLowResolution,
    )
    from medssl.views.batch import BatchCompose, BatchTransform, LogUniform
    from medssl.views.brightness import (
        BatchRandAdjustContrast,
        BatchRandHistogramShift,
        BatchRandScaleIntensity,
        BatchRandScaleIntensityFixedMean,
        BatchRandShiftIntensity,
        BatchRandWindow,
    )
    from medssl.views.intensity import IntensityChain
    from medssl.views.masks import block_mask, token_mask
    from medssl.views.region import Region
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
    "BatchRandScaleIntensityFixedMean",
    "BatchRandShiftIntensity",
    "BatchRandSimulateLowResolution",
    "BatchRandWindow",
    "BatchTransform",
    "IntensityChain",
    "LogUniform",
    "PerSample",
    "Region",
    "block_mask",
    "token_mask",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
