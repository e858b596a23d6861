"""From an archive to a cohort, to NIfTI files, or to an explanation of what became of a file.

The only package that imports both `medssl.archive` and `medssl.store`; it loads no torch. Names are imported where they
are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Explanation": "explanation",
    "IngestReport": "report",
    "IngestSettings": "settings",
    "SeriesComparison": "verify",
    "convert": "archive_to_nifti",
    "draw_overview": "overview",
    "explain": "explanation",
    "ingest": "archive_to_cohort",
    "load_scan": "one_scan",
    "verify_against_dcm2niix": "verify",
}

if TYPE_CHECKING:
    from medssl.ingestion.archive_to_cohort import ingest
    from medssl.ingestion.archive_to_nifti import convert
    from medssl.ingestion.explanation import Explanation, explain
    from medssl.ingestion.one_scan import load_scan
    from medssl.ingestion.overview import draw_overview
    from medssl.ingestion.report import IngestReport
    from medssl.ingestion.settings import IngestSettings
    from medssl.ingestion.verify import SeriesComparison, verify_against_dcm2niix

__all__ = [
    "Explanation",
    "IngestReport",
    "IngestSettings",
    "SeriesComparison",
    "convert",
    "draw_overview",
    "explain",
    "ingest",
    "load_scan",
    "verify_against_dcm2niix",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
