"""What continuing a run changes in its folder: what came later goes, what is set anew is written down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssl.files import remove_drafts
from medssl.runs.images import list_pictures
from medssl.runs.metrics import drop_metrics_beyond
from medssl.runs.record import RunRecord, make_id, now


def drop_beyond(folder: Path, *, at_step: int) -> None:
    """Remove half-written files, and metrics and pictures of later steps, which will be made again; from step 0 on,
    those of step 0 too.
    """
    for unfinished in (folder, folder / "checkpoints"):
        remove_drafts(unfinished)
    kept = at_step or -1
    drop_metrics_beyond(folder / "metrics.jsonl", at_step=kept)
    for picture in list_pictures(folder / "pictures"):
        if picture.step > kept:
            picture.path.unlink()


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Value before, by the dotted key of each setting that is another now; None where there was none.

    Text that could be a path is left out of the value.
    """
    old, new = flat(before), flat(after)
    return {key: _without_paths(old.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted key; a list is one value."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def _without_paths(value: Any) -> Any:
    return "a path" if any(mark in str(value) for mark in "/\\") else value


def identity(folder: Path) -> int:
    """What stays when a folder is renamed and differs in its copies: its inode. Not the device, whose number may change
    when the machine starts.
    """
    return folder.stat().st_ino


def own_id(record: RunRecord, folder: Path) -> dict[str, Any]:
    """Fields of a record that goes on in `folder`. A copy becomes a run of its own, so that it does not write into the
    original's run in MLflow; so does a run that was moved to another disk, which nothing tells from a copy.
    """
    here = identity(folder)
    if record.folder in (None, here):
        return {"folder": here}
    return {"folder": here, "id": make_id(record.kind, now()), "resumed_from": record.id}
