"""What a pretext task is, and the parts that tasks share: heads, teachers, queues, losses, geometry, masking.

Imports encoders, views and loading, and nothing that trains. The names below are imported when they are first used:
a task needs few of them.
"""

import importlib
from typing import Any

_MODULES = {
    "BatchNorm": "projection",
    "Centre": "distillation",
    "Compares": "task",
    "DropsTokens": "sparse",
    "LatentDecoder": "heads",
    "MultiCropConfig": "pairs",
    "PairConfig": "pairs",
    "PairGeometry": "pairs",
    "PatchConfig": "patches",
    "PatchGeometry": "patches",
    "PretextTask": "task",
    "Projection": "projection",
    "Prototypes": "clustering",
    "Queue": "queue",
    "RunningMoments": "moments",
    "Step": "task",
    "TaskConfig": "task",
    "Teacher": "momentum",
    "VectorHead": "heads",
    "ViewsConfig": "task",
    "VoxelHead": "heads",
    "backward_in_chunks": "gradient_cache",
    "balanced_codes": "clustering",
    "gather": "collectives",
    "momentum_at": "momentum",
    "pooled": "heads",
    "scored_mean": "reconstruction",
    "sinkhorn": "clustering",
    "valid_fraction": "reconstruction",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'medssl.pretext' has no attribute '{name}'")
    return getattr(importlib.import_module(f"medssl.pretext.{_MODULES[name]}"), name)
