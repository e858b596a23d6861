"""Health of codes and latents: teachers that give up, prototypes that win everything, latents that say nothing.

A task that has them logs the results in `Step.terms` under the names in `medssl.diagnostics.terms`, where the monitor
finds them.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, "Importance weighted autoencoders", section 5.2


@dataclass(frozen=True)
class TeacherEntropy:
    """Entropies as shares of ln K.

    each: mean entropy of a sample's distribution; 1 is the uniform teacher. overall: entropy of the mean distribution;
    0 is one prototype for all.
    """

    each: float
    overall: float


def teacher_entropy(probabilities: Float[Tensor, "n k"]) -> TeacherEntropy:
    """Of a teacher's distributions over K prototypes; rows sum to 1."""
    values = probabilities.detach().double()
    largest = math.log(values.shape[1])
    each = _entropy(values).mean()
    return TeacherEntropy(float(each) / largest, float(_entropy(values.mean(dim=0, keepdim=True))) / largest)


def active_units(means: Float[Tensor, "n d"]) -> float:
    """Share of latent dimensions whose posterior mean varies over samples by more than 0.01.

    Near 0 is posterior collapse.
    """
    variance = means.detach().double().var(dim=0, correction=0)
    return float((variance > ACTIVE_VARIANCE).double().mean())


def _entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp_min(1e-300).log()).sum(dim=1)
