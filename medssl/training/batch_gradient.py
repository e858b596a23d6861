"""Forward and backward of one batch: at once, or in chunks where it does not fit."""

from typing import Any, cast

from lightning_fabric import Fabric
from torch import Tensor, nn

from medssl.pretext.gradient_cache import backward_in_chunks, check_chunks
from medssl.pretext.task import Step


def set_up_chunks(task: nn.Module, model: Any, *, chunk: int) -> None:
    """Let `embed` be called on the set-up `model` as `forward` is. Nothing where `chunk` is 0.

    Raises ConfigError for a task whose gradient would not be that of the whole batch.
    """
    if chunk:
        check_chunks(task)
        model.mark_forward_method("embed")


def backward(model: Any, views: dict[str, Tensor], *, fabric: Fabric, chunk: int) -> Step:
    """Step of a batch, its gradient added to the parameters and averaged over ranks.

    model: as `fabric.setup` returned it. chunk: samples of this rank that are embedded at a time; 0 takes all at once.
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
