"""VICReg: the crops of a pair agree, every feature varies over the batch, and no two features correlate.

Bardes et al. 2022 (arXiv 2105.04906).
"""

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.errors import ConfigError
from medssl.hookspecs import hookimpl
from medssl.pretext.collectives import gather
from medssl.pretext.pairs import PAIR, NormOfHeads, PairConfig, encode, named_chunks
from medssl.pretext.projection import Projection, pooled_channels, upcast, without_autocast
from medssl.pretext.task import PretextTask, Step

VARIANCE_FLOOR = 1e-4  # under the square root; so a constant feature has a standard deviation of 0.01 (reference code)


class VICReg(PretextTask):
    """Invariance between two crops, with regularised variance and covariance of the features."""

    name = "vicreg"
    family = "redundancy reduction"

    class Config(PairConfig):
        """Settings of vicreg."""

        features: int = Field(default=256, ge=8, le=8192, description="Length of the compared vectors.")
        norm: NormOfHeads = "layer"
        invariance_weight: float = Field(
            default=25.0, ge=0.0, le=1000.0, description="Weight of the squared difference of a pair."
        )
        variance_weight: float = Field(
            default=25.0,
            ge=0.0,
            le=1000.0,
            description="Weight of the shortfall of each feature's standard deviation below 1.",
        )
        covariance_weight: float = Field(
            default=1.0, ge=0.0, le=1000.0, description="Weight of the squared covariances of different features."
        )

    config: Config

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        inputs = pooled_channels(encoder, config.pooled_levels)
        self.project = Projection(inputs, config.features, hidden=config.hidden, layers=3, norm=config.norm)

    def embed(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """`a` and `b`, (B, F) each."""
        return named_chunks(self.project(encode(self.encoder, views, PAIR, levels=self.config.pooled_levels)), PAIR)

    def compare(self, embeddings: dict[str, Tensor]) -> Step:
        """Invariance of this rank's pairs; variance and covariance of the batch of all ranks."""
        a, b = (upcast(embeddings[name]) for name in PAIR)
        everyone = [gather(vectors, across_ranks=self.training) for vectors in (a, b)]
        if len(everyone[0]) == 1:
            if self.training:
                raise ConfigError(
                    "vicreg holds the variance of features over a batch, and loop.batch_size is 1. Use 2 or more; 8 "
                    "is a good start."
                )
            everyone = [vectors.expand(2, -1) for vectors in everyone]  # a picture of one volume: no variance
        invariance = F.mse_loss(a, b)
        variance = torch.stack([shortfall(vectors) for vectors in everyone]).mean()
        covariance = torch.stack([redundancy(vectors) for vectors in everyone]).sum()
        config = self.config
        return Step(
            loss=config.invariance_weight * invariance
            + config.variance_weight * variance
            + config.covariance_weight * covariance,
            energy=(a - b).detach().square().mean(dim=1),
            negative_energy=(a - b.roll(1, dims=0)).detach().square().mean(dim=1) if len(a) > 1 else None,
            trivial_loss=config.variance_weight * (1 - VARIANCE_FLOOR**0.5),  # constant features
            terms={"invariance": invariance.detach(), "variance": variance.detach(), "covariance": covariance.detach()},
            embeddings=torch.cat([a, b]).detach(),
        )


def shortfall(vectors: Tensor) -> Tensor:
    """Mean over features of how far the (unbiased) standard deviation over N samples stays below 1; vectors (N, F)."""
    return F.relu(1 - (vectors.var(dim=0) + VARIANCE_FLOOR).sqrt()).mean()


def redundancy(vectors: Tensor) -> Tensor:
    """Sum of the squared covariances (over N - 1) of different features, divided by their number; vectors (N, F)."""
    count, features = vectors.shape
    with without_autocast(vectors):
        centred = vectors - vectors.mean(dim=0)
        covariance = centred.T @ centred / (count - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / features


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [VICReg]
