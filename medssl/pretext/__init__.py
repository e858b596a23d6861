"""What a pretext task is, and the parts that tasks share: heads, teachers, queues, losses, geometry, masking.

Imports encoders, views and loading, and nothing that trains. The names below are imported when they are first used:
a task needs few of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

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
    "momentum_at": "momentum",
    "pooled": "heads",
    "scored_mean": "reconstruction",
    "sinkhorn": "clustering",
    "valid_fraction": "reconstruction",
}

if TYPE_CHECKING:
    from medssl.pretext.clustering import Prototypes, balanced_codes, sinkhorn
    from medssl.pretext.distillation import Centre
    from medssl.pretext.gradient_cache import backward_in_chunks
    from medssl.pretext.heads import LatentDecoder, VectorHead, VoxelHead, pooled
    from medssl.pretext.moments import RunningMoments
    from medssl.pretext.momentum import Teacher, momentum_at
    from medssl.pretext.pairs import MultiCropConfig, PairConfig, PairGeometry
    from medssl.pretext.patches import PatchConfig, PatchGeometry
    from medssl.pretext.projection import BatchNorm, Projection
    from medssl.pretext.queue import Queue
    from medssl.pretext.reconstruction import scored_mean, valid_fraction
    from medssl.pretext.sparse import DropsTokens
    from medssl.pretext.task import Compares, PretextTask, Step, TaskConfig, ViewsConfig

__all__ = [
    "BatchNorm",
    "Centre",
    "Compares",
    "DropsTokens",
    "LatentDecoder",
    "MultiCropConfig",
    "PairConfig",
    "PairGeometry",
    "PatchConfig",
    "PatchGeometry",
    "PretextTask",
    "Projection",
    "Prototypes",
    "Queue",
    "RunningMoments",
    "Step",
    "TaskConfig",
    "Teacher",
    "VectorHead",
    "ViewsConfig",
    "VoxelHead",
    "backward_in_chunks",
    "balanced_codes",
    "momentum_at",
    "pooled",
    "scored_mean",
    "sinkhorn",
    "valid_fraction",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'medssl.pretext' has no attribute '{name}'")
    return getattr(importlib.import_module(f"medssl.pretext.{_MODULES[name]}"), name)
