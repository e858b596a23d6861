"""Measures of energies and features: does the task tell pairs apart, do features spread, do scans differ?

In this order: the energy gap, which all families of tasks share; the spread of features on the unit sphere; LiDAR,
which compares views within scans with differences between scans. Ranks of spectra are in `spectrum.py`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# LiDAR's constants: added to the within-scan covariance, and to each eigenvalue's fraction.
DELTA, EPSILON = 1e-4, 1e-7
# Features that vary by less than this fraction of their size are constant: whitening would turn their rounding errors
# into full rank.
MIN_VARIATION = 1e-4
# Means of groups differ by chance as if between/within were 1 (Fisher's F); below this they are indistinguishable.
MIN_F = 2.0


@dataclass(frozen=True)
class EnergyGap:
    """How far the energies of right and of shuffled pairs lie apart.

    Attributes:
        mean: energy of shuffled pairs minus that of right pairs, on average, in the task's own units.
        auc: probability that a right pair has less energy than a shuffled one, ties counting half: 1 is perfect, 0.5 is
            chance.
        pairs: number of right or of shuffled pairs, the smaller of the two.
    """

    mean: float
    auc: float
    pairs: int


def energy_gap(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> EnergyGap:
    """Energies of pairs that belong together against those of shuffled pairs. Raises ValueError if either is empty."""
    right, shuffled = positive.detach().double().cpu(), negative.detach().double().cpu()
    if not len(right) or not len(shuffled):
        raise ValueError("an energy gap needs at least one pair of each kind")
    # AUC is the Mann-Whitney statistic: per right pair, the shuffled ones above it, and half of those equal to it.
    ordered = shuffled.sort().values
    below = torch.searchsorted(ordered, right, side="left")
    not_above = torch.searchsorted(ordered, right, side="right")
    less = (len(shuffled) - not_above).double() + 0.5 * (not_above - below).double()
    auc = float(less.mean() / len(shuffled))
    return EnergyGap(float(shuffled.mean() - right.mean()), auc, min(len(right), len(shuffled)))


def feature_std(features: Float[Tensor, "n f"]) -> float:
    """Mean over channels of the standard deviation of L2-normalised features (Chen & He 2021, SimSiam).

    0 when collapsed, 1/sqrt(F) when isotropic. Does not see dimensional collapse.
    """
    return float(_on_sphere(features).std(dim=0, correction=0).mean())


def relative_std(features: Float[Tensor, "n f"]) -> float:
    """`feature_std` times sqrt(F): 0 when collapsed, 1 when isotropic, for any number of channels."""
    return feature_std(features) * math.sqrt(features.shape[1])


def alignment(a: Float[Tensor, "n f"], b: Float[Tensor, "n f"]) -> float:
    """Mean squared distance on the sphere of pairs that belong together, row by row (Wang & Isola 2020, alpha 2)."""
    return float((_on_sphere(a) - _on_sphere(b)).square().sum(dim=1).mean())


def uniformity(features: Float[Tensor, "n f"], *, t: float = 2.0) -> float:
    """Log of the mean Gaussian potential over all pairs (Wang & Isola 2020).

    0 when collapsed, -4 for orthogonal features.
    """
    points = _on_sphere(features)
    if len(points) < 2:
        return 0.0
    return float(torch.log(torch.exp(-t * torch.pdist(points).square()).mean()))


def root_mean_square(features: Float[Tensor, "n f"]) -> float:
    """Size of a typical feature value; grows when norms diverge."""
    return float(features.detach().double().square().mean().sqrt())


def _on_sphere(features: Tensor) -> Tensor:
    return F.normalize(features.detach().double(), dim=1)


def lidar(groups: Float[Tensor, "g v f"]) -> float:
    """Effective rank of the between-scan covariance after whitening by the within-scan one (Thilak et al. 2023, LiDAR).

    Between 1 and min(G - 1, F). 0 where the features hardly vary, or where scans differ no more than chance makes their
    means differ: the formula alone would call both perfect.

    Args:
        groups: features of G scans in V >= 2 views each.
    """
    values = groups.detach().double()
    count, views, channels = values.shape
    means = values.mean(dim=1)
    residuals = (values - means[:, None]).reshape(-1, channels)
    centred = means - means.mean(dim=0)
    between = centred.T @ centred / max(1, count - 1)
    freedom = max(1, count * (views - 1))
    within = residuals.T @ residuals / freedom
    variance = between.trace() + within.trace()
    # Two guards before the formula, which is scale-free and so sees structure in rounding errors and in noise alike:
    # features that are constant, and scans whose means differ as little as those of random groups (F near 1).
    if variance <= MIN_VARIATION**2 * values.square().sum(dim=2).mean():
        return 0.0
    if views * between.trace() < MIN_F * within.trace():
        return 0.0
    scale = variance / channels  # delta is for features of unit size
    identity = torch.eye(channels, dtype=torch.float64, device=values.device)
    # Shrink the within-scan covariance towards a multiple of the identity by F / (F + G (V - 1)), the fraction that so
    # few views leave undetermined (Ledoit & Wolf 2004 in spirit). Without it, whitening enlarges the directions that
    # 32 views happen not to fill, and the value collapses where F is near their number. With hundreds of views the
    # shrinkage changes nothing.
    shrinkage = channels / (channels + freedom)
    within = (1 - shrinkage) * within + shrinkage * within.trace() / channels * identity
    eigenvalues, axes = torch.linalg.eigh(within + DELTA * scale * identity)
    whiten = axes @ torch.diag(eigenvalues.rsqrt()) @ axes.T
    spectrum = torch.linalg.eigvalsh(whiten @ between @ whiten).clamp_min(0)
    fraction = spectrum / spectrum.sum() + EPSILON
    return float(torch.exp(-(fraction * fraction.log()).sum()))
