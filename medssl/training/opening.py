"""The run of a training: a new folder, or one to go on with where that is the same training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from pydantic import BaseModel

from medssl.errors import UsageError
from medssl.progress import Progress
from medssl.runs.privacy import flat_settings
from medssl.runs.resuming import changed_settings
from medssl.runs.run import Run
from medssl.runs.run_record import Kind
from medssl.training.checkpoint import read_checkpoint

# The same in every step of a run. Other settings may change on the way: the record says when.
FIXED_SETTINGS = ("loop.seed", "loop.batch_size", "splits", "regions_per_scan")
FIXED_METADATA = ("task", "init", "labelled_scans", "cohort_digest")


def open_run(
    out: Path,
    *,
    kind: Kind,
    config: BaseModel,
    metadata: Mapping[str, Any],
    resume: bool,
    fabric: Fabric,
    progress: Progress,
) -> Run:
    """A new run, or the one to continue. Rank 0 writes it; the others get a view once it is there.

    Raises UsageError when `out` is taken, or cannot be continued with these settings.
    """
    run = None
    settings = config.model_dump(mode="json")
    if fabric.is_global_zero and resume:
        run = continue_run(out, kind=kind, settings=settings, metadata=metadata, progress=progress)
    elif fabric.is_global_zero:
        run = Run.create(out, kind=kind, config=settings, metadata=metadata)
    fabric.barrier()
    return run or Run.open(out)


def continue_run(
    out: Path, *, kind: Kind, settings: Mapping[str, Any], metadata: Mapping[str, Any], progress: Progress
) -> Run:
    """The run in `out`, claimed. Changed settings are shown, and written to log and record."""
    earlier = Run.open(out)
    if earlier.kind != kind:
        raise UsageError(f"{out} is a {earlier.kind}. Continue it with: medssl {earlier.kind} --resume --out {out}")
    state = read_checkpoint(earlier.paths.checkpoint)
    if state is None:
        refuse_to_erase(earlier)
        notes = ["there is no checkpoint yet: it starts again from step 0"]
    else:
        refuse_another_training(earlier, step=int(state["step"]), settings=settings, metadata=metadata)
        before, after = changed_settings(earlier.config, settings), changed_settings(settings, earlier.config)
        notes = [f"{key} is {after[key]} from here on, {old} before" for key, old in before.items()]
    run = Run.resume(out, at_step=int(state["step"]) if state else 0, config=settings, metadata=metadata)
    for note in notes:
        progress.say(note)
    if notes:
        run.note(f"resumed: {'; '.join(notes)}")
    return run


def refuse_to_erase(run: Run) -> None:
    """Raise UsageError where starting over would lose the results of a training."""
    weights = (run.paths.encoder_weights, run.paths.model_weights)
    if run.status == "finished" or any(path.exists() for path in weights):
        raise UsageError(
            f"{run.folder} was trained, but its checkpoint (checkpoints/{run.paths.checkpoint.name}) is gone: it "
            "cannot be continued, and starting over would erase its metrics and pictures. Choose another folder with "
            "--out."
        )


def refuse_another_training(run: Run, *, step: int, settings: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raise UsageError where the next steps would belong to another training than those that are done."""
    flat, before, total = flat_settings(settings), flat_settings(run.config), int(settings["loop"]["steps"])
    if step > total:
        raise UsageError(
            f"{run.folder} has been trained for {step} steps, and loop.steps is {total}. "
            f"Give the whole number of steps, such as --steps {max(step, int(before.get('loop.steps', 0)))}."
        )
    old = {key: before[key] for key in FIXED_SETTINGS if key in before}
    old |= {key: run.metadata[key] for key in FIXED_METADATA if key in run.metadata}
    new = {**flat, **metadata}
    differing = [key for key, value in old.items() if key in new and new[key] != value]
    if differing:
        names = " and ".join(key.replace("_", " ") if key in FIXED_METADATA else key for key in differing)
        raise UsageError(
            f"{run.folder} was begun with another {names}, and a training is one throughout. "
            "Continue it without the change, or start a new run with another --out."
        )
