"""What the checks of `medssl doctor` take and return."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "note", "failed"]


@dataclass(frozen=True)
class Result:
    """One line of the report. A note does not count as failed; `fix` says what to do, unless the status is ok."""

    check: str
    status: Status
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Targets:
    """What to check.

    Attributes:
        out: folder with runs.
        cohort: cohort folder; None checks none.
        tracking_uri: tracking store; None means the store of `out`.
        fix: whether to apply safe fixes.
    """

    out: Path
    cohort: Path | None = None
    tracking_uri: str | None = None
    fix: bool = False
