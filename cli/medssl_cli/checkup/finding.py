"""What a check says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "note", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line: how it stands and, where it does not stand well, what to do. A note is no failure."""

    check: str
    status: Status
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Places:
    """What was asked to be looked at. out: folder in which runs are written. fix: whether safe things are put right."""

    out: Path
    cohort: Path | None = None
    tracking_uri: str | None = None
    fix: bool = False
