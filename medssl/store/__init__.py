"""Voxels on disk, and nothing else: scans written once on the store's grid and read box by box.

Imports geometry, shapes, files and errors, and no torch: data workers import this package. Names are imported where
they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Normalisation": "normalisation",
    "StorePolicy": "policy",
    "StoredVolume": "volumes",
    "open_volume": "volumes",
    "verify_volume": "volumes",
    "write_volume": "volumes",
}

if TYPE_CHECKING:
    from medssl.store.normalisation import Normalisation
    from medssl.store.policy import StorePolicy
    from medssl.store.volumes import StoredVolume, open_volume, verify_volume, write_volume

__all__ = [
    "Normalisation",
    "StorePolicy",
    "StoredVolume",
    "open_volume",
    "verify_volume",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
