"""medssl: from a scan archive to label-efficient segmentation.

The names below are what a plugin is written with. They are imported when they are first used, so that `import medssl`
loads no torch.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError("medssl does not run on Windows, which lacks fcntl and resource. Use WSL 2 or a Linux machine.")

__version__ = "0.1.0"

_PLACES = {
    "Crop": "medssl.loading.crops",
    "Decoder": "medssl.encoders.encoder",
    "SampleRandom": "medssl.randomness",
    "Encoder": "medssl.encoders.encoder",
    "EncoderDescription": "medssl.encoders.encoder",
    "Field": "pydantic",
    "IntensityChain": "medssl.views.intensity",
    "PerSample": "medssl.views.adapter",
    "PretextTask": "medssl.pretext.task",
    "MonaiTarget": "medssl.encoders.encoder",
    "Queue": "medssl.pretext.queue",
    "Region": "medssl.views.region",
    "Step": "medssl.pretext.task",
    "TaskConfig": "medssl.pretext.task",
    "Teacher": "medssl.pretext.momentum",
    "VectorHead": "medssl.pretext.heads",
    "VoxelHead": "medssl.pretext.heads",
    "block_mask": "medssl.views.masks",
    "gather": "medssl.pretext.collectives",
    "hookimpl": "medssl.hookspecs",
    "pooled": "medssl.pretext.heads",
}

if TYPE_CHECKING:
    from pydantic import Field

    from medssl.encoders.encoder import Decoder, Encoder, EncoderDescription, MonaiTarget
    from medssl.hookspecs import hookimpl
    from medssl.loading.crops import Crop
    from medssl.pretext.collectives import gather
    from medssl.pretext.heads import VectorHead, VoxelHead, pooled
    from medssl.pretext.momentum import Teacher
    from medssl.pretext.queue import Queue
    from medssl.pretext.task import PretextTask, Step, TaskConfig
    from medssl.randomness import SampleRandom
    from medssl.views.adapter import PerSample
    from medssl.views.intensity import IntensityChain
    from medssl.views.masks import block_mask
    from medssl.views.region import Region

__all__ = [
    "Crop",
    "Decoder",
    "Encoder",
    "EncoderDescription",
    "Field",
    "IntensityChain",
    "MonaiTarget",
    "PerSample",
    "PretextTask",
    "Queue",
    "Region",
    "SampleRandom",
    "Step",
    "TaskConfig",
    "Teacher",
    "VectorHead",
    "VoxelHead",
    "block_mask",
    "gather",
    "hookimpl",
    "pooled",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module 'medssl' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
