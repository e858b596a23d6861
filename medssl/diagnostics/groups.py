"""Rank of what distinguishes scans, measured against what distinguishes views of one scan (LiDAR)."""

import torch
from jaxtyping import Float
from torch import Tensor

DELTA, EPSILON = 1e-4, 1e-7
# Features that vary by less than this share of their size are constant: whitening would turn their rounding into full
# rank.
LEAST_VARIATION = 1e-4
# Means of groups differ by chance as if between/within were 1 (Fisher's F); below this they say nothing.
LEAST_F = 2.0


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
    if variance <= LEAST_VARIATION**2 * values.square().sum(dim=2).mean():
        return 0.0
    if views * between.trace() < LEAST_F * within.trace():
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
