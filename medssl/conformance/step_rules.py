"""Rules for the `Step` that a task returns, each with a sentence that says what to change."""

import math
from numbers import Real
from typing import Any

from torch import Tensor

from medssl.errors import PluginError
from medssl.pretext.task import Step


def check_axes(what: str, volume: Tensor, sizes: list[tuple[int, ...]]) -> None:
    """Raise PluginError for a crop's edges in another order. Any other size is the task's choice."""
    edges = tuple(volume.shape[2:])
    if volume.ndim == 5 and edges not in sizes and sorted(edges) in [sorted(size) for size in sizes]:
        raise PluginError(
            f"{what} has edges {edges}, a crop's edges in another order. Tensors are (B, C, D, H, W): do not "
            "transpose, or transpose back."
        )


def check_step(step: Any, *, batch: int, sizes: list[tuple[int, ...]]) -> None:
    """Raise PluginError where the host cannot use a step. sizes: edges (D, H, W) of crops and views."""
    check_batch(step, batch=batch)
    for name, value in step.terms.items():
        if not isinstance(value, Tensor) or value.ndim:
            raise PluginError(f"term '{name}' is not a scalar tensor. Reduce it (mean), and leave .item() to the host.")
        if value.requires_grad:
            raise PluginError(f"term '{name}' carries its graph, which keeps the batch in memory. Add .detach().")
    for name, picture in step.pictures.items():
        if not isinstance(picture, Tensor) or picture.ndim != 5 or picture.shape[1] != 1:
            shape = tuple(picture.shape) if isinstance(picture, Tensor) else type(picture).__name__
            raise PluginError(f"picture '{name}' is {shape}. A picture is a volume (B, 1, D, H, W).")
        if picture.requires_grad:
            raise PluginError(f"picture '{name}' carries its graph, which keeps the batch in memory. Add .detach().")
        check_axes(f"picture '{name}'", picture, sizes)
    if step.embeddings is not None and (step.embeddings.ndim != 2 or step.embeddings.requires_grad):
        raise PluginError("embeddings are not a detached tensor (N, F). Flatten and detach them.")
    for name, part in step.parts.items():
        check_batch(part, batch=batch)
        if part.loss.requires_grad:
            raise PluginError(f"the loss of part '{name}' carries its graph. Hand over its step with a detached loss.")


def check_batch(step: Any, *, batch: int) -> None:
    """Raise PluginError where the host cannot use a step's loss, energies or trivial loss."""
    if not isinstance(step, Step):
        raise PluginError(f"forward returns {type(step).__name__}. Return medssl.Step(loss=..., energy=...).")
    if step.loss.ndim:
        raise PluginError(f"the loss has shape {tuple(step.loss.shape)}. Reduce it to a scalar (mean).")
    if not step.loss.isfinite():
        raise PluginError(f"the loss is {step.loss.item()}. Guard divisions, roots and logarithms.")
    for name, energy in (("energy", step.energy), ("negative_energy", step.negative_energy)):
        if energy is None and name == "negative_energy":
            continue
        if not isinstance(energy, Tensor) or energy.ndim != 1:
            raise PluginError(f"{name} is not a vector. It holds one number per sample: (B,).")
        if name == "energy" and len(energy) != batch:
            raise PluginError(f"energy has {len(energy)} numbers for {batch} samples. It holds one per sample.")
        if not len(energy):
            raise PluginError(f"{name} is empty. Give one number per pair, or None where no pair exists.")
        if energy.requires_grad:
            raise PluginError(f"{name} carries its graph, which keeps the batch in memory. Add .detach().")
        if not energy.isfinite().all():
            raise PluginError(f"{name} is not finite. Guard divisions, roots and logarithms.")
    if step.trivial_loss is not None and (
        not isinstance(step.trivial_loss, Real) or not math.isfinite(step.trivial_loss)
    ):
        shown = type(step.trivial_loss).__name__ if isinstance(step.trivial_loss, Tensor) else repr(step.trivial_loss)
        raise PluginError(
            f"trivial_loss is {shown}. It is a finite number (float), or None; one that depends on the batch is a "
            "detached scalar among the terms, terms={'trivial_loss': ...}."
        )
