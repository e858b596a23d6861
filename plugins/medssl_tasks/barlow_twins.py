"""Barlow Twins: a feature correlates with itself across two crops and with no other feature.

Zbontar et al. 2021 (arXiv 2103.03230).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from medssl.encoders.encoder import Encoder
from medssl.errors import ConfigError
from medssl.hookspecs import hookimpl
from medssl.pretext.collectives import gather, rank
from medssl.pretext.moments import RunningMoments
from medssl.pretext.pairs import PAIR, NormOfHeads, PairConfig, encode, named_chunks, pair_step
from medssl.pretext.projection import Projection, pooled_channels, unit, upcast, without_autocast
from medssl.pretext.task import PretextTask, Step
from medssl.shapes import Shape3D


class BarlowTwins(PretextTask):
    """Bring the cross-correlation of the features of two crops to the identity."""

    name = "barlow-twins"
    family = "redundancy reduction"

    class Config(PairConfig):
        """Settings of barlow-twins."""

        features: int = Field(
            default=256,
            ge=8,
            le=8192,
            description="Length of the compared vectors. A batch of N cannot decorrelate more than N - 1 features; "
            "the remaining loss is noise that averages out over steps.",
        )
        norm: NormOfHeads = "layer"
        off_diagonal_weight: Annotated[float, Field(gt=0.0, le=1.0)] | Literal["auto"] = Field(
            default="auto",
            description="Weight of the correlations between different features. auto: 1 / features, so that all of "
            "them together weigh as much as the diagonal (Tsai et al. 2021, arXiv 2104.13712); the "
            "paper has 0.0051 for 8192.",
        )

    config: Config

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        inputs = pooled_channels(encoder, config.pooled_levels)
        self.project = Projection(inputs, config.features, hidden=config.hidden, layers=3, norm=config.norm)
        self.moments = RunningMoments(config.features)
        weight = config.off_diagonal_weight
        self.off_diagonal_weight = 1.0 / config.features if weight == "auto" else float(weight)

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, float]:
        """The weight of the off-diagonal terms."""
        return {"off_diagonal_weight": self.off_diagonal_weight}

    def embed(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """`a` and `b`, (B, F) each."""
        return named_chunks(self.project(encode(self.encoder, views, PAIR, levels=self.config.pooled_levels)), PAIR)

    def compare(self, embeddings: dict[str, Tensor]) -> Step:
        """(1 - c_ii)^2 plus weighted c_ij^2 of the cross-correlation c over the batch of all ranks.

        In evaluation features are standardised with the statistics of the training, so that an energy does not depend
        on the other samples of the batch.
        """
        # Gathered before the correlation: the loss is not a mean over samples, so the mean of the ranks' losses would
        # be another loss, whose gradient is far off at 2 to 8 volumes per rank.
        count = len(embeddings["a"])
        first = rank(across_ranks=self.training) * count
        everyone = [gather(upcast(embeddings[name]), across_ranks=self.training) for name in PAIR]
        if len(everyone[0]) == 1 and self.training:
            raise ConfigError(
                "barlow-twins correlates features over the volumes of a batch, and loop.batch_size is 1. Use 2 or "
                "more; 8 is a good start."
            )
        if self.training:
            self.moments.update(torch.cat(everyone))
        a, b = map(standardised if self.training else self.moments.standardised, everyone)
        agreement, redundancy = barlow_terms(a, b)
        of_this_rank = slice(first, first + count)
        return pair_step(
            agreement + self.off_diagonal_weight * redundancy,
            unit(a[of_this_rank]),
            unit(b[of_this_rank]),
            trivial_loss=float(self.config.features),  # constant features: every correlation is 0
            terms={"agreement": agreement, "redundancy": redundancy},
        )


def standardised(vectors: Tensor, *, eps: float = 1e-5) -> Tensor:
    """(N, F) with mean 0 and biased variance 1 over the batch, as a batch norm computes it.

    With the unbiased variance two equal crops would not give the identity.
    """
    return (vectors - vectors.mean(dim=0)) / (vectors.var(dim=0, unbiased=False) + eps).sqrt()


def barlow_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of (1 - c_ii)^2 and sum of c_ij^2 over i != j, of the correlation c between standardised features (N, F)."""
    with without_autocast(a):
        correlation = a.T @ b / len(a)
    diagonal = correlation.diagonal()
    return (1 - diagonal).square().sum(), correlation.square().sum() - diagonal.square().sum()


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [BarlowTwins]
