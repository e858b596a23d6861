"""The reviewer's answer: in the record of a run, or beside the evidence of a comparison."""

import json
from pathlib import Path
from typing import Any

from medssl.downstream.comparison import FILE_NAME
from medssl.errors import DataError, UsageError
from medssl.files import write_bytes
from medssl.runs.run import Run

ANSWER = "review.json"


def record_answer(folder: Path, *, review: str | None, note: str | None) -> None:
    """Write `review` ("accepted" or "rejected") and the reviewer's note; None keeps the earlier one.

    Raises UsageError where `folder` is neither a run nor a label-efficiency folder, or still being trained.
    """
    answer = {key: value for key, value in (("review", review), ("reviewer_note", note)) if value}
    if (folder / FILE_NAME).exists() and not (folder / "run.json").exists():
        content = json.dumps(read_answer(folder) | answer, indent=1)
        write_bytes(folder / ANSWER, f"{content}\n".encode())
        return
    run = Run.open(folder)
    if run.status == "running" and run.silent_for_s is None:
        raise UsageError(f"{folder} is still training. Review it when it has finished.")
    run.update(**answer)


def read_answer(folder: Path) -> dict[str, Any]:
    """The answer for a label-efficiency folder, empty before there is one. Raises DataError for a damaged file."""
    path = folder / ANSWER
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}). Remove it, and answer again.") from error
