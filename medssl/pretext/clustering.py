"""Directions that samples are assigned to: the last layer of clustering and self-distillation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medssl.pretext.gather import gather, rank
from medssl.pretext.projection import in_full, unit, without_autocast


class Prototypes(nn.Module):
    """Cosine similarity to `count` directions.

    Only the direction of a prototype matters, so neither weight decay nor its length can move the scores (SwAV
    normalises the weights before each step, DINO fixes the gain of a weight norm at 1; this is the same). `frozen` (0
    or 1, on the device) keeps the gradient out.
    """

    def __init__(self, features: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, features).normal_(std=features**-0.5))

    def forward(self, vectors: Float[Tensor, "... f"], frozen: Tensor | float = 0.0) -> Float[Tensor, "... k"]:
        """Scores in [-1, 1]."""
        with without_autocast(vectors):
            weight = self.weight.detach() + (1.0 - frozen) * (self.weight - self.weight.detach())
            return unit(vectors) @ unit(weight).mT


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "b k"], *, epsilon: float, iterations: int, mass: Float[Tensor, "b"] | None = None
) -> Float[Tensor, "b k"]:
    """Soft assignment of B samples to K prototypes: rows sum to 1, columns come closer to B / K with each iteration.

    epsilon: the smaller, the harder the codes. mass: how much each sample counts towards the columns, default 1 each.
    Works on logarithms, so that scores of any size neither overflow nor vanish.
    """
    plan = in_full(scores) / epsilon
    weight = torch.zeros_like(plan[:, :1]) if mass is None else mass.to(plan).log()[:, None]
    for _ in range(iterations):
        plan = plan - (plan + weight).logsumexp(dim=0, keepdim=True)
        plan = plan - plan.logsumexp(dim=1, keepdim=True)
    return plan.exp()


@torch.no_grad()
def codes(
    scores: Float[Tensor, "b k"],
    *,
    epsilon: float,
    iterations: int,
    memory: Float[Tensor, "m k"] | None = None,
    memory_mass: Float[Tensor, "m"] | None = None,
    together: bool = True,
) -> Float[Tensor, "b k"]:
    """Codes of this rank's samples, balanced over the batch of all ranks and a memory that all ranks share.

    The batch of a 3D network is far too small to spread over all prototypes; the memory is its company.
    """
    everyone = gather(in_full(scores.detach()), together=together)
    first, mass = rank(together=together) * len(scores), None
    if memory is not None:
        first += len(memory)
        known = torch.ones_like(memory[:, 0]) if memory_mass is None else memory_mass
        mass = torch.cat([known.to(everyone), torch.ones_like(everyone[:, 0])])
        everyone = torch.cat([memory.to(everyone), everyone])
    balanced: Tensor = sinkhorn(everyone, epsilon=epsilon, iterations=iterations, mass=mass)
    return balanced[first : first + len(scores)]
