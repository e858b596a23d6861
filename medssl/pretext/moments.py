"""Mean and variance of features over the batches of a training, to stand in for those of a batch outside it."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MIN_FRACTION = 0.1  # of the newest batch, as in torch's batch norms


class RunningMoments(nn.Module):
    """Running mean and variance of each feature, saved with the task; 0 and 1 before the first batch.

    A scan that is scored must not depend on the scans beside it, so whoever standardises over the batch in training
    takes these in evaluation. The first ten batches count alike, later ones a tenth. The variance is that of the
    mixture of batches (West 1979), not the mean of theirs, which over 2 to 8 volumes would be far too small.
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
    def remember(self, rows: Float[Tensor, "n f"]) -> None:
        """Take in a batch, gathered from all ranks; once per step."""
        rows = rows.detach().to(self.mean.dtype)
        share = (1.0 / (self.batches + 1)).clamp_min(MIN_FRACTION).to(self.mean.dtype)
        first = (self.batches == 0).to(self.mean.dtype)
        before = (1.0 - first) * self.variance  # the 1 of the beginning is no measurement
        apart = (rows.mean(dim=0) - self.mean) * (1.0 - first)
        own = rows.var(dim=0, unbiased=False)
        self.variance.copy_((1.0 - share) * (before + share * apart.square()) + share * own)
        self.mean.lerp_(rows.mean(dim=0), share)
        self.batches.add_(1)

    def standardised(self, vectors: Float[Tensor, "... f"], *, eps: float = 1e-5) -> Float[Tensor, "... f"]:
        """Each feature with mean 0 and variance 1 over what was remembered."""
        mean, variance = self.mean.to(vectors.dtype), self.variance.to(vectors.dtype)
        return (vectors - mean) / (variance + eps).sqrt()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A checkpoint from before there were running moments begins them anew, so that its training can go on."""
        for name, buffer in self.named_buffers(recurse=False):
            state_dict.setdefault(prefix + name, buffer)
        super()._load_from_state_dict(state_dict, prefix, *rest)
