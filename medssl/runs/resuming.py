"""What continuing a run changes in its folder: later results are removed, changed settings are written down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssl.files import remove_drafts
from medssl.runs.metrics_log import drop_metrics_beyond
from medssl.runs.paths import RunPaths
from medssl.runs.picture_files import list_pictures
from medssl.runs.privacy import flat_settings, is_private
from medssl.runs.run_record import RunRecord, make_id, now


def drop_beyond(folder: Path, *, at_step: int) -> None:
    """Remove half-written files, and metrics and pictures of later steps, which will be made again; from step 0 on,
    those of step 0 too.
    """
    paths = RunPaths(folder)
    for unfinished in (folder, paths.checkpoints):
        remove_drafts(unfinished)
    last = at_step or -1
    drop_metrics_beyond(paths.metrics, at_step=last)
    for picture in list_pictures(paths.pictures):
        if picture.step > last:
            picture.path.unlink()


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Value before, by the dotted key of each setting that has changed; None where it had none.

    What is or could be a path is replaced by 'a path'.
    """
    old, new = flat_settings(before), flat_settings(after)
    changed = {key: old.get(key) for key in {**old, **new} if old.get(key) != new.get(key)}
    return {key: "a path" if value is not None and is_private(key, value) else value for key, value in changed.items()}


def identity(folder: Path) -> int:
    """What stays when a folder is renamed and differs in its copies: its inode. Not the device, whose number may change
    when the machine starts.
    """
    return folder.stat().st_ino


def own_id(record: RunRecord, folder: Path) -> dict[str, Any]:
    """Fields of a record that goes on in `folder`. A copy becomes a run of its own, so that it does not write into the
    original's run in MLflow; so does a run that was moved to another disk, which nothing tells from a copy.
    """
    inode = identity(folder)
    if record.folder in (None, inode):
        return {"folder": inode}
    return {"folder": inode, "id": make_id(record.kind, now()), "resumed_from": record.id}
