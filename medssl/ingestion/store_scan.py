"""One scan from the archive into the store: load, check, write. Runs in a worker process."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.archive.checks import content_hash
from medssl.archive.index.load_plan import parse_source
from medssl.archive.index.outcome import Outcome
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.scan import load_planned_scan
from medssl.cohort.reasons import Reason
from medssl.store.policy import StorePolicy
from medssl.store.volumes import write_volume


@dataclass(frozen=True)
class Intake:
    """What a worker needs to know about one scan. source: as it lies in the index."""

    scan_id: str
    source: str
    modality: str
    store: Path
    policy: StorePolicy
    limits: Limits
    min_slices: int


def take_in(task: Intake) -> Outcome:
    """Store one scan and say what became of it.

    Raises DataError only for what concerns all scans, such as a full disk.
    """
    try:
        loaded = load_planned_scan(parse_source(task.source), limits=task.limits, min_slices=task.min_slices)
        write_volume(
            task.store, task.scan_id, loaded.volume, modality=task.modality, label=loaded.label, policy=task.policy
        )
    except Rejected as rejected:
        return Outcome.of(rejected)
    except MemoryError:
        return Outcome(Reason.TOO_LARGE, f"it needs more memory than {task.limits.worker_bytes} bytes")
    labels = tuple(int(value) for value in np.unique(loaded.label.voxels)) if loaded.label is not None else ()
    problem = loaded.label_problem
    return Outcome(
        reason=None,
        detail="",
        flags=loaded.flags,
        labels=labels,
        content_hash=content_hash(loaded.volume),
        label_reason=problem.reason if problem else None,
        label_detail=problem.detail if problem else "",
        trim=loaded.trim,
    )
