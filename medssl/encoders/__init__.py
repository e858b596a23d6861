"""Backbones behind one small interface, and their weights in and out of files.

`architectures` has the encoders that ship, one file each. Imports runs (for the names of files), config, plugins and
what lies below. Names are imported where they are first used: `medssl --help` lists encoders without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Decoder": "encoder",
    "Encoder": "encoder",
    "EncoderDescription": "encoder",
    "MonaiTarget": "encoder",
    "SegmentationNetwork": "segmentation_network",
    "build_encoder": "build",
    "describe": "build",
    "encoder_names": "build",
    "load_encoder": "weights",
    "load_network": "weights",
    "save_encoder": "weights",
    "save_network": "weights",
    "shipped_encoders": "shipped",
}

if TYPE_CHECKING:
    from medssl.encoders.build import build_encoder, describe, encoder_names
    from medssl.encoders.encoder import Decoder, Encoder, EncoderDescription, MonaiTarget
    from medssl.encoders.segmentation_network import SegmentationNetwork
    from medssl.encoders.shipped import shipped_encoders
    from medssl.encoders.weights import load_encoder, load_network, save_encoder, save_network

__all__ = [
    "Decoder",
    "Encoder",
    "EncoderDescription",
    "MonaiTarget",
    "SegmentationNetwork",
    "build_encoder",
    "describe",
    "encoder_names",
    "load_encoder",
    "load_network",
    "save_encoder",
    "save_network",
    "shipped_encoders",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
