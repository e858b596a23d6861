"""Self-distillation: what a student learns from a teacher's assignment to prototypes, and what prevents collapse."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.pretext.collectives import sum_over_ranks, world_size
from medssl.pretext.projection import upcast


class Centre(nn.Module):
    """Running mean of the teacher's scores, subtracted before its softmax (Caron et al. 2021, DINO, equation 4).

    It is saved with the task, is updated after it was used, and is the same on every rank.

    Args:
        count: number of prototypes.
    """

    mean: Tensor
    moved: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("moved", torch.zeros((), dtype=torch.int64))
        self._sums: list[tuple[Tensor, Tensor]] = []

    def observe(self, scores: Float[Tensor, "*b k"], weight: Float[Tensor, "*b"] | None = None) -> None:
        """Remember this rank's scores for the next `update`; each counts as much as its weight."""
        rows = upcast(scores.detach()).flatten(0, -2)
        counts = torch.ones_like(rows[:, 0]) if weight is None else weight.detach().flatten().to(rows)
        self._sums.append(((rows * counts[:, None]).sum(dim=0), counts.sum()))

    @torch.no_grad()
    def update(self, momentum: float = 0.9) -> None:
        """Take in the scores observed since the last update; once per optimizer step, on all ranks together.

        Args:
            momentum: weight of the old centre. The first update ignores it and replaces the centre: the scores of a new
                network lie far from 0, and a teacher with a wrong centre gives the same answer for everything.
        """
        if not self._sums:
            return
        summed = sum_over_ranks(torch.stack([rows for rows, _ in self._sums]).sum(dim=0), across_ranks=self.training)
        count = sum_over_ranks(torch.stack([number for _, number in self._sums]).sum(), across_ranks=self.training)
        self._sums.clear()
        # `where` instead of `if`: neither condition is known on the host, and reading it would wait for the device.
        momentums = torch.where(self.moved == 0, torch.zeros_like(count), torch.full_like(count, momentum))
        momentums = torch.where(count > 0, momentums, torch.ones_like(momentums)).to(self.mean)
        self.mean.lerp_((summed / count.clamp(min=1)).to(self.mean), 1 - momentums)
        self.moved += 1


def teacher_probabilities(scores: Float[Tensor, "*b k"], *, centre: Tensor, temperature: Tensor | float) -> Tensor:
    """Softmax of the centred scores, in at least float32; adding a constant to scores and centre changes nothing."""
    return torch.softmax((upcast(scores) - centre.to(scores.device)) / temperature, dim=-1).detach()


def cross_entropy(
    target: Float[Tensor, "*b k"], scores: Float[Tensor, "*b k"], *, temperature: float
) -> Float[Tensor, "*b"]:
    """Per row, -sum of target * log softmax(scores / temperature); ln K for a uniform student."""
    return -(target * F.log_softmax(upcast(scores) / temperature, dim=-1)).sum(dim=-1)


def entropy(probabilities: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
    """Per row, -sum of p ln p; 0 where p is 0."""
    return -torch.xlogy(probabilities, probabilities).sum(dim=-1)


def prototype_usage(probabilities: Float[Tensor, "b k"], *, across_ranks: bool) -> Tensor:
    """How evenly a batch uses the prototypes: 1 for equal use, 0 where one prototype takes all; without gradient.

    The entropy of the mean assignment over all ranks, divided by its largest possible value. B samples that are each
    certain cannot use more than B prototypes, so that value is ln min(B, K), and the result is clipped at 1.
    """
    ranks = world_size(across_ranks=across_ranks)
    mean = sum_over_ranks(upcast(probabilities).mean(dim=0), across_ranks=across_ranks) / ranks
    reachable = math.log(max(2, min(mean.numel(), ranks * len(probabilities))))
    return (entropy(mean) / reachable).clamp(max=1.0)
