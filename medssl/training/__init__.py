"""The training loop and what goes with it: pretraining, checkpoints, the collapse watch, dry runs and benchmarks.

Imports diagnostics, pretext and everything below them; knows nothing of MLflow. Names are imported where they are first
used, since the command line imports this package and must not load torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "CollapseWatch": "watch",
    "EncoderCandidates": "candidates",
    "Trainee": "trainee",
    "Training": "trainee",
    "benchmark": "trial",
    "dry_run": "trial",
    "train": "loop",
}

if TYPE_CHECKING:
    from medssl.training.candidates import EncoderCandidates
    from medssl.training.loop import train
    from medssl.training.trainee import Trainee, Training
    from medssl.training.trial import benchmark, dry_run
    from medssl.training.watch import CollapseWatch

__all__ = [
    "CollapseWatch",
    "EncoderCandidates",
    "Trainee",
    "Training",
    "benchmark",
    "dry_run",
    "train",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
