"""What an encoder makes of fixed images: one vector per image, and vectors of single places.

Vectors of whole images can be healthy while those of places within an image are all alike, which is what segmentation
would feel.
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
MAX_PLACES = 4096


@dataclass(frozen=True)
class Features:
    """Of the coarsest level.

    Pooled: (images, F), the mean over space. dense: (places, F), the same places at every call.
    """

    pooled: Tensor
    dense: Tensor


def extract_features(encoder: Encoder, images: Float[Tensor, "n c d h w"]) -> Features:
    """Features of fixed images, float32, without gradient.

    Leaves the encoder's mode and torch's random state as they were.
    """
    maps = []
    with torch.no_grad(), evaluating(encoder):
        for start in range(0, len(images), CHUNK):
            maps.append(encoder(images[start : start + CHUNK])[-1].float())
    coarsest = torch.cat(maps)  # (N, F, d, h, w)
    places = rearrange(coarsest, "n f d h w -> (n d h w) f")
    return Features(coarsest.mean(dim=(2, 3, 4)), places[_chosen(len(places))])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, for each part as it was afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _chosen(count: int) -> Tensor:
    """Places spread evenly over all of them, `MAX_PLACES` at most; no random numbers."""
    return torch.linspace(0, count - 1, min(count, MAX_PLACES)).round().long()
