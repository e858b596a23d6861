"""Training state on disk, so that a killed training continues as if it had not been killed.

Nothing random is stored: every step seeds itself from (seed, step). A checkpoint therefore holds the module with all
its buffers (teacher, queue, centre), the optimizer, the scale of the loss under 16-mixed, what the collapse watch and
the choice of the encoder remember, and the number of steps done.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from medssl.errors import CheckpointError
from medssl.files import atomic_write, explain_write_errors
from medssl.formats import check_format

FORMAT = 2


def save_checkpoint(
    path: Path,
    *,
    module: nn.Module,
    optimizer: Optimizer,
    step: int,
    watch: Mapping[str, Any] | None = None,
    candidates: list[dict[str, Any]] | None = None,
    precision: Mapping[str, Any] | None = None,
) -> None:
    """Write the state after some steps; a reader sees the old file or the new one, never a part.

    Args:
        path: The file, `RunPaths.checkpoint`; its folder is made.
        module: What is trained, not wrapped.
        optimizer: Its optimizer.
        step: Steps done.
        watch: State of the collapse watch.
        candidates: State of the encoders to choose from.
        precision: State of Fabric's precision plugin; empty where it has none.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written.
    """
    state = {"format": FORMAT, "medssl": version("medssl"), "step": step, "module": module.state_dict()}
    state |= {"optimizer": optimizer.state_dict(), "precision": dict(precision or {})}
    state |= {"watch": dict(watch) if watch is not None else None, "candidates": candidates}
    with explain_write_errors(path, error=CheckpointError):
        path.parent.mkdir(parents=True, exist_ok=True)
    # torch's zip writer reports a full disk as a RuntimeError.
    with atomic_write(path, error=CheckpointError, library_errors=(RuntimeError,)) as draft, draft.open("wb") as file:
        torch.save(state, file)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """State that `save_checkpoint` wrote, on the CPU; None where there is none yet. Never unpickles code.

    Raises CheckpointError when the file is damaged or of another format.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}). Restore it from a copy, or remove it to "
            "start again from step 0: a run that has not finished then loses its metrics and pictures too."
        ) from error
    state = state if isinstance(state, dict) else {}
    found, writer = state.get("format"), state.get("medssl")
    check_format(path, found, FORMAT, writer=writer, remedy="train again in a new folder", error=CheckpointError)
    return state


def restore(state: Mapping[str, Any], *, module: nn.Module, optimizer: Optimizer) -> int:
    """Put a state back and return the number of steps done.

    Raises CheckpointError when module or optimizer differ in shape from those that were saved.
    """
    try:
        module.load_state_dict(state["module"], strict=True)
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"The checkpoint does not fit the task and encoder of this run: {first_line} Use the run's own config.yaml."
        ) from error
    return int(state["step"])
