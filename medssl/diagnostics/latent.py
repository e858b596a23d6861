"""Health of codes and latents: uniform teachers, prototypes that take all samples, latents that ignore the input.

A task that has them logs the results in `Step.terms` under the names of `observed.TERMS`, which the monitor reads.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, "Importance weighted autoencoders", section 5.2


@dataclass(frozen=True)
class TeacherEntropy:
    """Entropies as fractions of ln K.

    Attributes:
        each: mean entropy of a sample's distribution; 1 is the uniform teacher.
        overall: entropy of the mean distribution; 0 is one prototype for all samples.
    """

    each: float
    overall: float


def teacher_entropy(probabilities: Float[Tensor, "n k"]) -> TeacherEntropy:
    """Entropies of a teacher's distributions over K prototypes; rows sum to 1."""
    values = probabilities.detach().double()
    largest = math.log(values.shape[1])
    each = _entropy(values).mean()
    return TeacherEntropy(float(each) / largest, float(_entropy(values.mean(dim=0, keepdim=True))) / largest)


def active_units(means: Float[Tensor, "n d"]) -> float:
    """Fraction of latent dimensions whose posterior mean has a variance over samples above 0.01.

    Near 0 is posterior collapse.
    """
    variance = means.detach().double().var(dim=0, correction=0)
    return float((variance > ACTIVE_VARIANCE).double().mean())


def _entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp_min(1e-300).log()).sum(dim=1)
