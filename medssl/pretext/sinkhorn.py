"""Codes that use all prototypes equally (Caron et al. 2020, SwAV, arXiv 2006.09882, after Cuturi 2013)."""

import torch
from jaxtyping import Float
from torch import Tensor

from medssl.pretext.gather import gather, rank
from medssl.pretext.projection import in_full


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
