"""The run folder, which is the truth about one training: training writes it, everything else reads it.

Imports files, errors and config, and no torch: commands list runs. Names are imported where they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Picture": "picture_files",
    "Run": "run",
    "RunPaths": "paths",
    "RunRecord": "run_record",
    "Terminated": "ending",
}

if TYPE_CHECKING:
    from medssl.runs.ending import Terminated
    from medssl.runs.paths import RunPaths
    from medssl.runs.picture_files import Picture
    from medssl.runs.run import Run
    from medssl.runs.run_record import RunRecord

__all__ = [
    "Picture",
    "Run",
    "RunPaths",
    "RunRecord",
    "Terminated",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
