"""Collective operations over the batch of all ranks, with the gradient that a single process would compute.

Every rank must hold the same number of samples. The number of ranks is looked up at each call, because a task is built
before the process group exists. `across_ranks=False` restricts a call to this rank's batch: pictures and scores are
made on one rank alone, where a collective call would wait for the others for ever.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size(*, across_ranks: bool = True) -> int:
    """Number of ranks that take part."""
    return dist.get_world_size() if across_ranks and dist.is_available() and dist.is_initialized() else 1


def rank(*, across_ranks: bool = True) -> int:
    """Number of this rank; 0 in a single process."""
    return dist.get_rank() if world_size(across_ranks=across_ranks) > 1 else 0


def gather(rows: Tensor, *, across_ranks: bool = True) -> Tensor:
    """(world_size * B, ...) from (B, ...): the rows of all ranks in order of rank, with gradient.

    The loss of each rank must be the mean over its own rows, and gradients must be averaged over ranks, as DDP does.
    The result is then exactly the gradient of one process with the whole batch.
    """
    if world_size(across_ranks=across_ranks) == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


@torch.no_grad()
def sum_over_ranks(values: Tensor, *, across_ranks: bool = True) -> Tensor:
    """Sum over ranks, without gradient; a new tensor."""
    values = values.detach().clone()
    if world_size(across_ranks=across_ranks) > 1:
        dist.all_reduce(values)
    return values


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass sums the gradients of all ranks.

    With W ranks of B rows, one process would minimise L = 1/W sum_r L_r, and every L_r depends on the rows x_k of every
    rank k: dL/dx_k = 1/W sum_r dL_r/dx_k. The sum over r has to happen here, since rank k alone knows only its own L_k.
    The factor 1/W is DDP's average of the parameters' gradients afterwards. Averaging here as well would divide by W
    twice; `torch.distributed.all_gather` alone has no gradient, and drops all terms but r = k.
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
