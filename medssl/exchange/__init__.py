"""Hands a trained model over: safetensors, a MONAI bundle, a checkpoint of nnU-Net.

Imports encoders, runs and what lies below them, and nothing of training. Names are imported where they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Export": "export",
    "TrainedModel": "trained_model",
    "open_trained_model": "trained_model",
}

if TYPE_CHECKING:
    from medssl.exchange.export import Export
    from medssl.exchange.trained_model import TrainedModel, open_trained_model

__all__ = [
    "Export",
    "TrainedModel",
    "open_trained_model",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
