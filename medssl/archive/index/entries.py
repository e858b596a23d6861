"""What the private index knows of one file and of one scan, and what of a scan stays when it is planned anew."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from medssl.archive.index.path_text import path_text
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.reasons import Reason


@dataclass(frozen=True)
class IndexedFile:
    """One file and what its header said. record: JSON of the scan layer, None where there is none."""

    path: Path
    root: Path
    stamp: FileStamp
    kind: str
    reason: Reason | None
    detail: str
    series: str | None
    record: str | None


@dataclass(frozen=True)
class IndexedScan:
    """One planned or rejected scan. row, source and outcome are JSON; source is None where there is nothing to load.

    kept: JSON of the same scan as it was stored before, while it waits to be loaded from elsewhere or anew.
    """

    scan_id: str
    series: str
    source: str | None
    row: str
    detail: str
    outcome: str | None
    kept: str | None = None

    @property
    def stored(self) -> "IndexedScan | None":
        """What lies in the store under this id, as far as the index knows: this scan, or what it was before."""
        if self.outcome is not None:
            return None if json.loads(self.outcome)["reason"] else self
        return IndexedScan(**json.loads(self.kept)) if self.kept else None


def carried(old: IndexedScan, new: IndexedScan) -> tuple[str | None, str | None]:
    """(outcome, kept) of a scan that is planned anew."""
    stored = old.stored
    if stored is not None and _loads_alike(stored, new):
        return stored.outcome, None
    return (old.outcome, None) if _loads_alike(old, new) else (None, kept_text(stored))


def _loads_alike(one: IndexedScan, other: IndexedScan) -> bool:
    """Whether the same voxels would be stored: how, depends on the modality too."""
    if one.source != other.source:
        return False
    return one.row == other.row or json.loads(one.row).get("modality") == json.loads(other.row).get("modality")


def kept_text(stored: IndexedScan | None) -> str | None:
    """A stored scan as it is remembered while the scan that takes its place is loaded."""
    return json.dumps(asdict(replace(stored, kept=None))) if stored else None


def series_key(path: Path) -> str:
    """Key of the series that a NIfTI file is by itself."""
    return f"nifti:{path_text(path)}"
