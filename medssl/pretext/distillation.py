"""What a student learns from a teacher's assignment to prototypes, and what keeps that from being one for all."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.pretext.gather import total, world_size
from medssl.pretext.projection import in_full


class Centre(nn.Module):
    """Running mean of the teacher's scores, taken off before its softmax (Caron et al. 2021, DINO, equation 4).

    It is saved with the task, moves after it was used, and is the same on every rank.
    """

    mean: Tensor
    moved: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("moved", torch.zeros((), dtype=torch.int64))
        self._seen: list[tuple[Tensor, Tensor]] = []

    def note(self, scores: Float[Tensor, "*b k"], weight: Float[Tensor, "*b"] | None = None) -> None:
        """Remember this rank's scores for the next `move`; each counts as much as its weight."""
        rows = in_full(scores.detach()).flatten(0, -2)
        counts = torch.ones_like(rows[:, 0]) if weight is None else weight.detach().flatten().to(rows)
        self._seen.append(((rows * counts[:, None]).sum(dim=0), counts.sum()))

    @torch.no_grad()
    def move(self, momentum: float = 0.9) -> None:
        """Take in what was noted since the last time: once per optimiser step, on all ranks together.

        momentum: share of the old centre that stays; the first time nothing does, because the scores of a new network
        lie far from 0 and a teacher with a wrong centre has one answer for all.
        """
        if not self._seen:
            return
        summed = total(torch.stack([part for part, _ in self._seen]).sum(dim=0), together=self.training)
        count = total(torch.stack([number for _, number in self._seen]).sum(), together=self.training)
        self._seen.clear()
        stays = torch.where(self.moved == 0, torch.zeros_like(count), torch.full_like(count, momentum))
        stays = torch.where(count > 0, stays, torch.ones_like(stays)).to(self.mean)
        self.mean.lerp_((summed / count.clamp(min=1)).to(self.mean), 1 - stays)
        self.moved += 1


def teacher_probabilities(scores: Float[Tensor, "*b k"], *, centre: Tensor, temperature: Tensor | float) -> Tensor:
    """Softmax of the centred scores, in at least float32; adding a constant to scores and centre changes nothing."""
    return torch.softmax((in_full(scores) - centre.to(scores.device)) / temperature, dim=-1).detach()


def cross_entropy(
    target: Float[Tensor, "*b k"], scores: Float[Tensor, "*b k"], *, temperature: float
) -> Float[Tensor, "*b"]:
    """Per row, -sum of target * log softmax(scores / temperature); ln K for a uniform student."""
    return -(target * F.log_softmax(in_full(scores) / temperature, dim=-1)).sum(dim=-1)


def entropy(probabilities: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
    """Per row, -sum of p ln p; 0 where p is 0."""
    return -torch.xlogy(probabilities, probabilities).sum(dim=-1)


def usage(probabilities: Float[Tensor, "b k"], *, together: bool) -> Tensor:
    """Entropy of the mean over all ranks as a share of what so many samples can reach: 1 for even use, 0 where one
    takes all.

    B samples that are each certain cannot use more than B prototypes, so ln min(B, K) is 1, and more than that too.
    Without gradient.
    """
    ranks = world_size(together=together)
    mean = total(in_full(probabilities).mean(dim=0), together=together) / ranks
    reachable = math.log(max(2, min(mean.numel(), ranks * len(probabilities))))
    return (entropy(mean) / reachable).clamp(max=1.0)
