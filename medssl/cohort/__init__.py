"""What an ingest leaves behind and training starts from: the manifest, its codes, and the cohort that holds both.

Imports errors, files and randomness only, and neither torch nor pyarrow. Names are imported where they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Cohort": "cohort",
    "CohortSummary": "summary",
    "Flag": "reasons",
    "ManifestDifference": "difference",
    "ManifestRow": "manifest",
    "Reason": "reasons",
    "compare_manifests": "difference",
    "read_manifest": "manifest",
    "summarise": "summary",
    "write_manifest": "manifest",
}

if TYPE_CHECKING:
    from medssl.cohort.cohort import Cohort
    from medssl.cohort.difference import ManifestDifference, compare_manifests
    from medssl.cohort.manifest import ManifestRow, read_manifest, write_manifest
    from medssl.cohort.reasons import Flag, Reason
    from medssl.cohort.summary import CohortSummary, summarise

__all__ = [
    "Cohort",
    "CohortSummary",
    "Flag",
    "ManifestDifference",
    "ManifestRow",
    "Reason",
    "compare_manifests",
    "read_manifest",
    "summarise",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
