"""Training state on disk, so that a killed training continues as if it had not been killed.

Nothing random is stored: every step seeds itself from (seed, step). A checkpoint therefore holds the module with all
its buffers (teacher, queue, centre), the optimiser, the scale of the loss under 16-mixed, and the number of steps done.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from medssl.errors import CheckpointError
from medssl.files import atomic_write, explain_write_errors

FORMAT = 1
FILE_NAME = "last.ckpt"


def save_checkpoint(
    folder: Path,
    *,
    module: nn.Module,
    optimiser: Optimizer,
    step: int,
    watch: dict[str, Any] | None = None,
    precision: dict[str, Any] | None = None,
) -> Path:
    """Write the state after `step` steps; a reader sees the old file or the new one, never a part.

    watch: of the collapse watch. precision: of Fabric's precision plugin; empty where it has none.
    Raises CheckpointError when the disk is full or the folder cannot be written.
    """
    path = folder / FILE_NAME
    state = {"format": FORMAT, "step": step, "module": module.state_dict(), "optimiser": optimiser.state_dict()}
    state |= {"watch": watch, "precision": precision or {}}
    with explain_write_errors(path, error=CheckpointError):
        folder.mkdir(parents=True, exist_ok=True)
    # torch's zip writer reports a full disk as a RuntimeError.
    with (
        atomic_write(path, error=CheckpointError, library_errors=(RuntimeError,)) as draft,
        draft.open("wb") as file,
    ):
        torch.save(state, file)
    return path


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """State written by `save_checkpoint`, on the CPU; None when there is none yet. Never unpickles code.

    Raises CheckpointError when the file is damaged or of another format.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}). Restore it from a copy, or remove it to "
            "start again from step 0: a run that has not finished then loses its metrics and pictures too."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{path} has checkpoint format {found}; this medssl reads {FORMAT}. "
            "Continue with the version that wrote it."
        )
    return state


def restore(state: dict[str, Any], *, module: nn.Module, optimiser: Optimizer) -> int:
    """Put a state back and return the number of steps done.

    Raises CheckpointError when module or optimiser have another shape than the one that was saved.
    """
    try:
        module.load_state_dict(state["module"], strict=True)
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"The checkpoint does not fit the task and encoder of this run: {first_line} Use the run's own config.yaml."
        ) from error
    return int(state["step"])
