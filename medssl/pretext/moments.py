"""Running mean and variance of features, which replace the batch's in evaluation."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MIN_FRACTION = 0.1  # of the newest batch, as in torch's batch norms


class RunningMoments(nn.Module):
    """Running mean and variance of each feature, saved with the task; 0 and 1 before the first batch.

    The score of a scan must not depend on the scans beside it, so what is standardised over the batch in training is
    standardised with these in evaluation. The first ten batches have equal weights, later ones a tenth.

    Args:
        features: number of features.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, rows: Float[Tensor, "n f"]) -> None:
        """Take in a batch, gathered from all ranks; once per step."""
        # The variance of the mixture of all batches (West 1979): the variances within batches plus that of their means.
        # The mean of the batches' variances alone is too small by a factor (n - 1) / n, which at n = 2 to 8 volumes
        # matters. torch's batch norm takes that mean.
        rows = rows.detach().to(self.mean.dtype)
        weight = (1.0 / (self.batches + 1)).clamp_min(MIN_FRACTION).to(self.mean.dtype)
        first = (self.batches == 0).to(self.mean.dtype)
        before = (1.0 - first) * self.variance  # the initial 1 was not measured
        apart = (rows.mean(dim=0) - self.mean) * (1.0 - first)
        newest = rows.var(dim=0, unbiased=False)
        self.variance.copy_((1.0 - weight) * (before + weight * apart.square()) + weight * newest)
        self.mean.lerp_(rows.mean(dim=0), weight)
        self.batches.add_(1)

    def standardised(self, vectors: Float[Tensor, "... f"], *, eps: float = 1e-5) -> Float[Tensor, "... f"]:
        """Each feature with mean 0 and variance 1 over the batches so far."""
        mean, variance = self.mean.to(vectors.dtype), self.variance.to(vectors.dtype)
        return (vectors - mean) / (variance + eps).sqrt()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """A checkpoint without running moments starts them anew, so that its training can continue."""
        for name, buffer in self.named_buffers(recurse=False):
            state_dict.setdefault(prefix + name, buffer)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
