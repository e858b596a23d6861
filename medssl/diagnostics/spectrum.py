"""How many directions features use, from their singular values. All in float64; 0 if there is nothing to measure."""

import torch
from jaxtyping import Float
from torch import Tensor

# RankMe's own constant; larger ones (1e-5 is seen) add a tenth of a dimension to collapsed features of 768 channels.
EPSILON = 1e-7
# Eigenvalues below this fraction of the largest are rounding errors.
NEGLIGIBLE = 1e-10
# alpha-ReQ fits the middle of the spectrum: the first eigenvalues are the data's, the last are noise of the sample.
FIRST_FRACTION, LAST_FRACTION, MIN_POINTS = 0.05, 0.5, 4


def rankme(features: Float[Tensor, "n f"], *, centred: bool = False) -> float:
    """Effective rank: exponential of the entropy of the singular values (Garrido et al. 2022, RankMe, equation 1).

    Lies between 1 and min(N, F); compare it only at equal N, F and layer. Uncentred as in the paper, where one common
    offset hides everything else; `centred` subtracts the mean first. 0 for features that are all zero (or, centred, all
    equal).
    """
    values = torch.linalg.svdvals(_prepared(features, centred=centred))
    total = values.sum()
    if not total > 0 or values[0] <= NEGLIGIBLE * _scale(features):
        return 0.0
    fraction = values / total + EPSILON
    return float(torch.exp(-(fraction * fraction.log()).sum()))


def eigenvalues(features: Float[Tensor, "n f"]) -> Tensor:
    """(min(N, F),) eigenvalues of the features' covariance, largest first; zeros where all features are equal."""
    prepared = _prepared(features, centred=True)
    values = torch.linalg.svdvals(prepared).square() / max(1, len(features) - 1)
    return torch.where(values > (NEGLIGIBLE * _scale(features)) ** 2, values, torch.zeros_like(values))


def alpha_req(spectrum: Float[Tensor, " k"]) -> float:
    """Exponent a of a spectrum that falls as i^-a, fitted over its middle (Agrawal et al. 2022, alpha-ReQ).

    spectrum: `eigenvalues`, largest first. About 1 is good; clearly above 1 means that few directions carry everything.
    0 if fewer than four eigenvalues can be fitted.
    """
    values = spectrum.double()
    values = values[values > 0]
    first = int(FIRST_FRACTION * len(values))
    last = max(int(LAST_FRACTION * len(values)), first + MIN_POINTS)
    if last > len(values):
        return 0.0
    x = torch.arange(first + 1, last + 1, dtype=torch.float64).log()
    y = values[first:last].log().cpu()
    x = x - x.mean()
    return float(-(x * (y - y.mean())).sum() / x.square().sum())


def participation_ratio(spectrum: Float[Tensor, " k"]) -> float:
    """(sum of eigenvalues)^2 / sum of their squares: dimensions that carry the variance, without a free constant."""
    values = spectrum.double()
    total = values.square().sum()
    return float(values.sum().square() / total) if total > 0 else 0.0


def _prepared(features: Tensor, *, centred: bool) -> Tensor:
    values = features.detach().double()
    return values - values.mean(dim=0) if centred else values


def _scale(features: Tensor) -> float:
    """Frobenius norm; differences below a tiny fraction of it are rounding errors of the float32 features."""
    return float(features.detach().double().norm()) * 1e3
