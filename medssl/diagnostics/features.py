"""Features of fixed images: one vector per image, and vectors of single positions.

Vectors of whole images can be healthy while those of positions within an image are all alike, which would harm
segmentation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from medssl.encoders.encoder import Encoder

CHUNK = 4  # images per forward pass
MAX_POSITIONS = 4096


@dataclass(frozen=True)
class Features:
    """Features of the coarsest level.

    Attributes:
        pooled: (images, F), the mean over space.
        dense: (positions, F), the same positions at every call.
    """

    pooled: Tensor
    dense: Tensor


def extract_features(encoder: Encoder, images: Float[Tensor, "n c d h w"]) -> Features:
    """Features of fixed images, float32, without gradient. Leaves the encoder's mode and torch's random state alone."""
    maps = []
    with torch.no_grad(), evaluating(encoder):
        for start in range(0, len(images), CHUNK):
            maps.append(encoder(images[start : start + CHUNK])[-1].float())
    coarsest = torch.cat(maps)  # (N, F, d, h, w)
    vectors = rearrange(coarsest, "n f d h w -> (n d h w) f")
    return Features(coarsest.mean(dim=(2, 3, 4)), vectors[_spread(len(vectors))])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every part has its own mode again afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _spread(count: int) -> Tensor:
    """Up to `MAX_POSITIONS` indices spread evenly over `count`, without random numbers."""
    return torch.linspace(0, count - 1, min(count, MAX_POSITIONS)).round().long()
