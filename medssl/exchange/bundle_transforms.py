"""Intensity normalisation of medssl for MONAI bundles: this file is copied into a bundle as scripts/transforms.py.

It needs numpy and MONAI only, because a bundle runs without medssl. `medssl.store.normalisation` is the original; a
test holds the two together.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

CT_WINDOW_HU = (-1000.0, 1000.0)
CT_STD_HU = 400.0
PERCENTILES = (0.5, 99.5)
BODY_SHARE = 0.1
MASK_VOXELS, STATISTIC_VOXELS = 1_000_000, 2_000_000


class NormalizeScand(MapTransform):  # type: ignore[misc]  # MONAI's classes are untyped
    """Clip to the window of the body and scale to mean 0 and standard deviation 1 over it; fixed window for CT.

    modalities: of the scans that the network was trained on. Raises ValueError where `modality` is none of them.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modality: str | None = None,
        modalities: Sequence[str] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if modalities and modality not in modalities:
            raise ValueError(
                f"the network was trained on {' and '.join(modalities)}, and the modality of these scans is "
                f"{modality or 'not given'}. Name it: --modality {modalities[0]}"
            )
        self.modality = modality

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Images are (1, D, H, W) or any other order of the axes."""
        out = dict(data)
        for key in self.key_iterator(out):
            voxels = np.asarray(out[key], dtype=np.float32)
            low, high, mean, std = window(voxels[0], self.modality)
            scaled = (np.clip(voxels, np.float32(low), np.float32(high)) - np.float32(mean)) / np.float32(std)
            out[key] = convert_to_dst_type(scaled.astype(np.float32), out[key])[0]
        return out


def window(voxels: Any, modality: str | None) -> Sequence[float]:
    """Low, high, mean and standard deviation that normalise one scan."""
    if modality == "CT":
        return (*CT_WINDOW_HU, 0.0, CT_STD_HU)
    scan = _thinned(voxels, STATISTIC_VOXELS)
    dark, bright = np.percentile(_thinned(scan, MASK_VOXELS), PERCENTILES)
    body = scan[scan > dark + BODY_SHARE * (bright - dark)].astype(np.float64)
    body = body if body.size else scan.astype(np.float64).ravel()
    low, high = np.percentile(body, PERCENTILES)
    inside = np.clip(body, low, high)
    std = float(inside.std())
    return float(low), float(high), float(inside.mean()), std if std > 1e-6 * max(1.0, abs(high)) else 1.0


def _thinned(voxels: Any, enough: int) -> Any:
    every = max(1, round((voxels.size / enough) ** (1 / 3)))
    return voxels[::every, ::every, ::every]
