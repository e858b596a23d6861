"""What one optimizer step is made of: its seed, its gradient, and the norm that is clipped."""

import math
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from medssl.pretext.gradient_cache import backward_in_chunks, check_chunks
from medssl.pretext.task import Step
from medssl.randomness import generator


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make torch's own generator, which dropout and third-party tasks use, a function of seed, step and rank."""
    torch.manual_seed(int(generator(seed, step, f"torch/{rank}").integers(2**62)))


def set_up_chunks(task: nn.Module, model: Any, *, chunk: int) -> None:
    """Let `embed` be called on the set-up `model` as `forward` is; does nothing where `chunk` is 0.

    Raises ConfigError for a task whose gradient would not be that of the whole batch.
    """
    if chunk:
        check_chunks(task)
        model.mark_forward_method("embed")


def backward(model: Any, views: dict[str, Tensor], *, fabric: Fabric, chunk: int) -> Step:
    """Step of a batch, its gradient added to the parameters and averaged over ranks.

    Args:
        model: What `fabric.setup` returned.
        views: Of this rank's part of the batch.
        fabric: The processes.
        chunk: Samples of this rank that are embedded at a time; 0 takes all at once.
    """
    if not chunk:
        output: Step = model(views)
        fabric.backward(output.loss)
        return output
    return backward_in_chunks(
        cast(nn.Module, model.module),
        views,
        chunk=chunk,
        embed=model.embed,
        backward=fabric.backward,
        accumulating=lambda more: fabric.no_backward_sync(model, enabled=more),
    )


def clip_gradient(fabric: Fabric, model: nn.Module, optimizer: Optimizer, max_norm: float) -> Tensor:
    """Scale the gradient down to `max_norm`, where 0 clips nothing, and return the norm it had."""
    norm = fabric.clip_gradients(model, optimizer, max_norm=max_norm or math.inf, error_if_nonfinite=False)
    return cast(Tensor, norm)
