"""Is the encoder learning? Measures of features and energies, the collapse verdict, the linear probe.

Imports pretext, encoders and errors. Names are imported where they are first used, since all of them load torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Candidate": "selection",
    "CollapseMonitor": "monitor",
    "Diagnosis": "monitor",
    "Features": "features",
    "LinearProbe": "probe",
    "ProbeScore": "probe",
    "Verdict": "verdict",
    "choose_checkpoint": "selection",
    "extract_features": "features",
    "judge": "verdict",
    "probe_segmentation": "probe",
}

if TYPE_CHECKING:
    from medssl.diagnostics.features import Features, extract_features
    from medssl.diagnostics.monitor import CollapseMonitor, Diagnosis
    from medssl.diagnostics.probe import LinearProbe, ProbeScore, probe_segmentation
    from medssl.diagnostics.selection import Candidate, choose_checkpoint
    from medssl.diagnostics.verdict import Verdict, judge

__all__ = [
    "Candidate",
    "CollapseMonitor",
    "Diagnosis",
    "Features",
    "LinearProbe",
    "ProbeScore",
    "Verdict",
    "choose_checkpoint",
    "extract_features",
    "judge",
    "probe_segmentation",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
