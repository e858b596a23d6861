"""What training reads: the batch plan, the crops of a sample, the loader and its worker processes.

Imports store, cohort, config and randomness. Names are imported where they are first used, since a worker process
imports this package and must not load torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "BatchPlan": "plan",
    "Crop": "crops",
    "RegionBatch": "loader",
    "RegionLoader": "loader",
    "Sample": "crops",
    "batch_at": "loader",
    "scan_weights": "scan_weights",
}

if TYPE_CHECKING:
    from medssl.loading.crops import Crop, Sample
    from medssl.loading.loader import RegionBatch, RegionLoader, batch_at
    from medssl.loading.plan import BatchPlan
    from medssl.loading.scan_weights import scan_weights

__all__ = [
    "BatchPlan",
    "Crop",
    "RegionBatch",
    "RegionLoader",
    "Sample",
    "batch_at",
    "scan_weights",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
