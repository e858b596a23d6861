"""How features lie on the sphere.

Whether they spread, and whether pairs that belong together lie together. All in float64.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

KOLEO_EPSILON = 1e-8  # DINOv2's, added per coordinate and to the distance


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


def koleo(features: Float[Tensor, "n f"]) -> float:
    """-mean ln of the distance to the nearest other feature on the sphere (Sablayrolles et al.

    2019, as in DINOv2); low is spread.
    """
    points = _on_sphere(features)
    if len(points) < 2:
        return 0.0
    similarity = points @ points.T
    nearest = similarity.fill_diagonal_(-2.0).argmax(dim=1)
    distance = (points - points[nearest] + KOLEO_EPSILON).norm(dim=1)
    return float(-(distance + KOLEO_EPSILON).log().mean())


def root_mean_square(features: Float[Tensor, "n f"]) -> float:
    """Size of a typical feature value; grows where norms diverge."""
    return float(features.detach().double().square().mean().sqrt())


def _on_sphere(features: Tensor) -> Tensor:
    return F.normalize(features.detach().double(), dim=1)
