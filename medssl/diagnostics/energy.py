"""Whether a task tells pairs that belong together from pairs that do not: the one measure that all families share."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class EnergyGap:
    """mean: of the wrong pairs' energy minus that of the right pairs, in the task's own units.

    auc: chance that a right pair has less energy than a wrong one, ties counting half: 1 when all is well, 0.5 when
    collapsed. pairs: how many right and wrong pairs it rests on, the smaller of the two.
    """

    mean: float
    auc: float
    pairs: int


def energy_gap(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> EnergyGap:
    """Energy of pairs that belong together against energy of shuffled pairs. Raises ValueError where there are none."""
    right, wrong = positive.detach().double().cpu(), negative.detach().double().cpu()
    if not len(right) or not len(wrong):
        raise ValueError("an energy gap needs at least one pair of each kind")
    ordered = wrong.sort().values
    below = torch.searchsorted(ordered, right, side="left")
    not_above = torch.searchsorted(ordered, right, side="right")
    less = (len(wrong) - not_above).double() + 0.5 * (not_above - below).double()
    return EnergyGap(float(wrong.mean() - right.mean()), float(less.mean() / len(wrong)), min(len(right), len(wrong)))
