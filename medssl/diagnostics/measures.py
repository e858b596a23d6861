"""Whether a task tells pairs that belong together from pairs that do not: the one measure that all families share."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


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


DELTA, EPSILON = 1e-4, 1e-7
# Features that vary by less than this share of their size are constant: whitening would turn their rounding into full
# rank.
MIN_VARIATION = 1e-4
# Means of groups differ by chance as if between/within were 1 (Fisher's F); below this they say nothing.
MIN_F = 2.0


def lidar(groups: Float[Tensor, "g v f"]) -> float:
    """Effective rank of the between-scan covariance after whitening by the within-scan one (Thilak et al. 2023, LiDAR).

    groups: G scans, V >= 2 views of each, F features. Lies between 1 and min(G - 1, F). 0 where the features hardly
    vary, or where scans differ no more than chance makes their means differ: the formula alone would call both perfect.

    The within-scan covariance is drawn towards a multiple of the identity by F / (F + G (V - 1)), the share of it that
    so few views leave open (Ledoit & Wolf 2004 in spirit). Without it, whitening blows up the directions that 32 views
    happen not to fill, and the value collapses where F is near their number. With hundreds of views it changes nothing.
    """
    values = groups.detach().double()
    count, views, channels = values.shape
    means = values.mean(dim=1)
    centre = means.mean(dim=0)
    inside = (values - means[:, None]).reshape(-1, channels)
    between = (means - centre).T @ (means - centre) / max(1, count - 1)
    freedom = max(1, count * (views - 1))
    within = inside.T @ inside / freedom
    variance = between.trace() + within.trace()
    if variance <= MIN_VARIATION**2 * values.square().sum(dim=2).mean():
        return 0.0
    if views * between.trace() < MIN_F * within.trace():
        return 0.0
    scale = variance / channels  # delta is for features of unit size
    identity = torch.eye(channels, dtype=torch.float64, device=values.device)
    doubt = channels / (channels + freedom)
    within = (1 - doubt) * within + doubt * within.trace() / channels * identity
    spread, axes = torch.linalg.eigh(within + DELTA * scale * identity)
    whiten = axes @ torch.diag(spread.rsqrt()) @ axes.T
    values = torch.linalg.eigvalsh(whiten @ between @ whiten).clamp_min(0)
    share = values / values.sum() + EPSILON
    return float(torch.exp(-(share * share.log()).sum()))


def feature_std(features: Float[Tensor, "n f"]) -> float:
    """Mean over channels of the standard deviation of L2-normalised features (Chen & He 2021, SimSiam).

    0 when collapsed, 1/sqrt(F) when isotropic. Does not see dimensional collapse.
    """
    return float(_on_sphere(features).std(dim=0, correction=0).mean())


def relative_std(features: Float[Tensor, "n f"]) -> float:
    """`feature_std` times sqrt(F): 0 when collapsed, 1 when isotropic, whatever the number of channels."""
    return feature_std(features) * math.sqrt(features.shape[1])


def alignment(one: Float[Tensor, "n f"], other: Float[Tensor, "n f"]) -> float:
    """Mean squared distance on the sphere of pairs that belong together, row by row (Wang & Isola 2020, alpha 2)."""
    return float((_on_sphere(one) - _on_sphere(other)).square().sum(dim=1).mean())


def uniformity(features: Float[Tensor, "n f"], *, t: float = 2.0) -> float:
    """Log of the mean Gaussian potential over all pairs (Wang & Isola 2020).

    0 when collapsed, -4 for orthogonal features.
    """
    points = _on_sphere(features)
    if len(points) < 2:
        return 0.0
    return float(torch.log(torch.exp(-t * torch.pdist(points).square()).mean()))


def root_mean_square(features: Float[Tensor, "n f"]) -> float:
    """Size of a typical feature value; grows where norms diverge."""
    return float(features.detach().double().square().mean().sqrt())


def _on_sphere(features: Tensor) -> Tensor:
    return F.normalize(features.detach().double(), dim=1)
