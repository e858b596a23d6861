"""Directions that samples are assigned to: the last layer of clustering and self-distillation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medssl.pretext.projection import unit, without_autocast


class Prototypes(nn.Module):
    """Cosine similarity to `count` directions.

    Only the direction of a prototype matters, so neither weight decay nor its length can move the scores (SwAV
    normalises the weights before each step, DINO fixes the gain of a weight norm at 1; this is the same). `frozen` (0
    or 1, on the device) keeps the gradient out.
    """

    def __init__(self, features: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, features).normal_(std=features**-0.5))

    def forward(self, vectors: Float[Tensor, "... f"], frozen: Tensor | float = 0.0) -> Float[Tensor, "... k"]:
        """Scores in [-1, 1]."""
        with without_autocast(vectors):
            weight = self.weight.detach() + (1.0 - frozen) * (self.weight - self.weight.detach())
            return unit(vectors) @ unit(weight).mT
