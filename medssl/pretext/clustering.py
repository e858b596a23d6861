"""Soft clustering: prototypes, and balanced assignments of samples to them (SwAV, DINO)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medssl.pretext.collectives import gather, rank
from medssl.pretext.projection import unit, upcast, without_autocast


class Prototypes(nn.Module):
    """Cosine similarity of vectors to learned directions.

    Only the direction of a prototype enters the scores, so neither weight decay nor its length can change them. SwAV
    normalises the weights before each step, DINO fixes the gain of a weight norm at 1; both amount to this.

    Args:
        features: length of the vectors.
        count: number of prototypes.
    """

    def __init__(self, features: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, features).normal_(std=features**-0.5))

    def forward(self, vectors: Float[Tensor, "... f"], frozen: Tensor | float = 0.0) -> Float[Tensor, "... k"]:
        """Scores in [-1, 1].

        Args:
            vectors: of any length; they are normalised here.
            frozen: 1 keeps the gradient from the prototypes, 0 does not. A tensor on the device, so that a schedule can
                switch it without a host synchronisation and without leaving parameters out of DDP's reduction.
        """
        with without_autocast(vectors):
            weight = self.weight.detach() + (1.0 - frozen) * (self.weight - self.weight.detach())
            return unit(vectors) @ unit(weight).mT


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "b k"], *, epsilon: float, iterations: int, mass: Float[Tensor, "b"] | None = None
) -> Float[Tensor, "b k"]:
    """Soft assignment of B samples to K prototypes that uses all prototypes equally.

    Entropic optimal transport by Sinkhorn's algorithm (Cuturi 2013; Caron et al. 2020, SwAV, equation 3): each
    iteration scales the columns of exp(scores / epsilon) to equal sums, then the rows to sum 1. Ending with the rows
    makes every row exactly a distribution; the columns approach B / K.

    Args:
        scores: similarity of each sample to each prototype.
        epsilon: weight of the entropy; smaller values give harder assignments.
        iterations: number of column and row scalings.
        mass: weight of each sample in the column sums; 1 each by default.
    """
    # In logarithms: exp(score / 0.03) overflows float32 for scores near 3, and small ones underflow to rows of zeros.
    plan = upcast(scores) / epsilon
    weight = torch.zeros_like(plan[:, :1]) if mass is None else mass.to(plan).log()[:, None]
    for _ in range(iterations):
        plan = plan - (plan + weight).logsumexp(dim=0, keepdim=True)
        plan = plan - plan.logsumexp(dim=1, keepdim=True)
    return plan.exp()


@torch.no_grad()
def balanced_codes(
    scores: Float[Tensor, "b k"],
    *,
    epsilon: float,
    iterations: int,
    memory: Float[Tensor, "m k"] | None = None,
    memory_mass: Float[Tensor, "m"] | None = None,
    across_ranks: bool = True,
) -> Float[Tensor, "b k"]:
    """Assignments of this rank's samples by `sinkhorn` over the batch of all ranks and a memory.

    The batch of a 3D network is far smaller than the number of prototypes; without a memory, equal use of all
    prototypes would force samples onto prototypes that do not fit them (Caron et al. 2020, section 3.1).

    Args:
        scores: of this rank's samples.
        epsilon: as in `sinkhorn`.
        iterations: as in `sinkhorn`.
        memory: scores of earlier samples, the same on every rank.
        memory_mass: 1 for an entry that counts, 0 for one that is still empty; 1 each by default.
        across_ranks: whether the batch is that of all ranks.
    """
    everyone = gather(upcast(scores.detach()), across_ranks=across_ranks)
    first, mass = rank(across_ranks=across_ranks) * len(scores), None
    if memory is not None:
        first += len(memory)
        memory_weights = torch.ones_like(memory[:, 0]) if memory_mass is None else memory_mass
        mass = torch.cat([memory_weights.to(everyone), torch.ones_like(everyone[:, 0])])
        everyone = torch.cat([memory.to(everyone), everyone])
    balanced: Tensor = sinkhorn(everyone, epsilon=epsilon, iterations=iterations, mass=mass)
    return balanced[first : first + len(scores)]
