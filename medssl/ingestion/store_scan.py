"""One scan from the archive into the store: load, check, write. Runs in a worker process."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.archive.checks import content_hash
from medssl.archive.index.load_plan import LOAD_PLANS
from medssl.archive.index.planned_scan import Outcome
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.scan import load_planned_scan
from medssl.cohort.reasons import Reason
from medssl.store.policy import StorePolicy
from medssl.store.volumes import write_volume


@dataclass(frozen=True)
class StoreTask:
    """What a worker needs to know about one scan.

    Attributes:
        scan_id: its pseudonym.
        load_plan_json: what to read, as it lies in the index: cheap to send, and parsed by the worker.
        modality: by which the policy decides on the spacing.
        store: folder to write to.
        policy: how scans are stored.
        limits: budgets of the worker.
        min_slices: fewest slices that may remain where some have to be left out.
    """

    scan_id: str
    load_plan_json: str
    modality: str
    store: Path
    policy: StorePolicy
    limits: Limits
    min_slices: int


def store_scan(task: StoreTask) -> Outcome:
    """Store one scan and say what became of it.

    Raises:
        DataError: only for what concerns all scans, such as a full disk.
    """
    try:
        plan = LOAD_PLANS.validate_json(task.load_plan_json)
        loaded = load_planned_scan(plan, limits=task.limits, min_slices=task.min_slices)
        volume, label = loaded.volume, loaded.label
        write_volume(task.store, task.scan_id, volume, modality=task.modality, label=label, policy=task.policy)
    except Rejected as rejected:
        return Outcome.of(rejected)
    except MemoryError:
        return Outcome(Reason.TOO_LARGE, f"it needs more memory than {task.limits.worker_bytes} bytes")
    problem = loaded.label_problem
    return Outcome(
        reason=None,
        detail="",
        flags=loaded.flags,
        labels=tuple(np.unique(label.voxels).tolist()) if label is not None else (),
        content_hash=content_hash(volume),
        label_reason=problem.reason if problem else None,
        label_detail=problem.detail if problem else "",
        trim=loaded.trim,
    )
