"""Looking at the batch of all ranks, with the gradient that one process would have.

Batches must have the same size on every rank. Whether there is more than one rank is asked when a function is called,
because a task is built before the process group is. `together=False` keeps to this rank's batch: pictures and scores
are made on one rank alone, and a collective call there would wait for ever.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size(*, together: bool = True) -> int:
    """Number of ranks that take part."""
    return dist.get_world_size() if together and dist.is_available() and dist.is_initialized() else 1


def rank(*, together: bool = True) -> int:
    """Number of the rank we are; 0 where there is only one."""
    return dist.get_rank() if world_size(together=together) > 1 else 0


def gather(rows: Tensor, *, together: bool = True) -> Tensor:
    """(world * B, ...) from (B, ...): the rows of all ranks in order of rank, with gradient.

    The backward pass sums over ranks what their losses have to say about this rank's rows. With a loss that is the mean
    over this rank's rows and gradients averaged over ranks (DDP), the result is exactly the gradient of one process.
    """
    if world_size(together=together) == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


@torch.no_grad()
def total(values: Tensor, *, together: bool = True) -> Tensor:
    """Sum over ranks, without gradient; a new tensor."""
    values = values.detach().clone()
    if world_size(together=together) > 1:
        dist.all_reduce(values)
    return values


@torch.no_grad()
def largest(values: Tensor, *, together: bool = True) -> Tensor:
    """Maximum over ranks, without gradient; a new tensor."""
    values = values.detach().clone()
    if world_size(together=together) > 1:
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass is the sum over ranks.

    Under DDP, an average would divide by their number twice.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]
