"""SimCLR: contrast overlapping crops with those of other scans, and points of their overlap with each other.

The pooled part is Chen et al. 2020 (arXiv 2002.05709). It hardly trains the finest levels, which segmentation needs;
the local part, after Goncharov et al. 2023 (vox2vec, arXiv 2307.14725), compares the features of
all levels at points that lie in both crops. With `local_from: decoder` the points are described by a decoder, as the
local stage of Chaitanya et al. 2020 (arXiv 2006.10511) has it.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.errors import ConfigError
from medssl.hookspecs import hookimpl
from medssl.pretext.collectives import gather, rank, world_size
from medssl.pretext.pairs import PAIR, NormOfHeads, PairConfig, matching_points, named_chunks, pair_step
from medssl.pretext.projection import Projection, features_at, pooled_channels, pooled_levels, unit, without_autocast
from medssl.pretext.task import PretextTask, Step
from medssl.views.region import Region

# Logit of a pair that is excluded; finite, so that a point without any negative has a gradient of 0 instead of NaN.
NEVER = -1e9


class SimCLR(PretextTask):
    """Contrast overlapping crops against the rest of the batch, and points of their overlap against each other."""

    name = "simclr"
    family = "contrastive"

    class Config(PairConfig):
        """Settings of simclr."""

        temperature: float = Field(
            default=0.2,
            gt=0.0,
            le=2.0,
            description="Divides similarities. Small values stress the most similar negatives; 0.1 suits batches of "
            "hundreds, 0.5 very small ones.",
        )
        norm: NormOfHeads = "layer"
        local_weight: float = Field(
            default=1.0,
            ge=0.0,
            le=10.0,
            description="Weight of the loss between points, which trains the fine levels that segmentation needs; 0 "
            "is plain SimCLR.",
        )
        local_from: Literal["encoder", "decoder"] = Field(
            default="encoder",
            description="What describes a point: the features of all levels of the encoder, or a decoder, which is "
            "then trained too and handed to fine-tuning; that takes about twice the time per step.",
        )
        local_points: int = Field(
            default=128, ge=8, le=1024, description="Points per pair that are compared with each other."
        )
        local_margin_voxels: float = Field(
            default=4.0,
            ge=0.0,
            le=64.0,
            description="Points nearer to each other than this, in voxels of the scan, are not used as negatives: they "
            "are mostly the same tissue.",
        )

    config: Config

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        inputs = pooled_channels(encoder, config.pooled_levels)
        self.project = Projection(inputs, config.features, hidden=config.hidden, norm=config.norm)
        self.project_local, self.decoder = None, None
        if config.local_weight > 0:
            described = sum(encoder.channels)
            if config.local_from == "decoder":
                described = encoder.channels[0]
                self.decoder = encoder.make_decoder(described)
            self.project_local = Projection(described, config.features, hidden=config.hidden // 4)

    def views(self, region: Region) -> dict[str, Tensor]:
        """`a` and `b`, (B, C, D, H, W) each, and points that lie in both."""
        images = self.config.views(region)
        if self.project_local is None:
            return images
        depth, height, width = images["a"].shape[2:]
        return images | matching_points(region, (depth, height, width), self.config.local_points)

    def embed(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """Vectors of the crops and, with the local part, of the points and where those lie."""
        images = torch.cat([views["a"], views["b"]])
        pyramid = self.encoder(images)
        out = named_chunks(self.project(pooled_levels(pyramid, self.config.pooled_levels)), PAIR)
        if self.project_local is not None:
            depth, height, width = views["a"].shape[2:]
            points = torch.cat([views["points_a"], views["points_b"]])
            levels = pyramid if self.decoder is None else [self.decoder(pyramid, images)]
            local = self.project_local(features_at(levels, points, (depth, height, width)))
            out |= named_chunks(local, PAIR, "local_") | {name: views[name] for name in ("points_scan", "points_valid")}
        return out

    def compare(self, embeddings: dict[str, Tensor]) -> Step:
        """NT-Xent of the crops of all ranks plus the weighted contrast between points of each pair."""
        a, b = unit(embeddings["a"]), unit(embeddings["b"])
        volumes = len(a) * world_size(across_ranks=self.training)
        if volumes == 1 and self.training:
            raise ConfigError(
                "simclr contrasts the volumes of a batch, and loop.batch_size is 1. Use 2 or more, or a task "
                "without negatives such as byol."
            )
        pooled = nt_xent(a, b, temperature=self.config.temperature, across_ranks=self.training)
        loss, trivial, terms = pooled, math.log(2 * volumes - 1), {"pooled": pooled}
        if self.project_local is not None:
            local = self._local(embeddings).mean()
            loss = loss + self.config.local_weight * local
            trivial += self.config.local_weight * math.log(self.config.local_points)
            terms["local"] = local
        return pair_step(loss, a, b, trivial_loss=trivial, terms=terms)

    def _local(self, embeddings: dict[str, Tensor]) -> Tensor:
        return point_contrast(
            unit(embeddings["local_a"]),
            unit(embeddings["local_b"]),
            temperature=self.config.temperature,
            positions_voxels=embeddings["points_scan"],
            valid=embeddings["points_valid"],
            margin_voxels=self.config.local_margin_voxels,
        )


def nt_xent(a: Tensor, b: Tensor, *, temperature: float, across_ranks: bool = True) -> Tensor:
    """Mean over this rank's 2n crops of the cross-entropy of finding the partner among the 2N - 1 others of all ranks.

    Chen et al. 2020, equation 1; the positive stays in the denominator.

    Args:
        a: (n, F) unit vectors of the first crops.
        b: (n, F) unit vectors of the second crops.
        temperature: divides similarities.
        across_ranks: whether the negatives are those of all ranks.
    """
    first = rank(across_ranks=across_ranks) * len(a)
    with without_autocast(a):
        everyone = torch.cat([gather(a, across_ranks=across_ranks), gather(b, across_ranks=across_ranks)])  # (2N, F)
        logits = torch.cat([a, b]) @ everyone.T / temperature  # (2n, 2N)
        number = torch.arange(first, first + len(a), device=a.device)
        half = len(everyone) // 2
        itself = torch.cat([number, number + half])
        logits = logits.scatter(1, itself[:, None], -math.inf)
        return F.cross_entropy(logits, torch.cat([number + half, number]))


def point_contrast(
    a: Tensor, b: Tensor, *, temperature: float, positions_voxels: Tensor, valid: Tensor, margin_voxels: float
) -> Tensor:
    """(B,) mean over points, in both directions, of ln(1 + (N - 1) * mean over negatives of e^(negative - positive)).

    The negatives of a point are the points of the other crop at least `margin_voxels` away. Their mean times N - 1,
    instead of their sum, makes ln N the value of a collapsed encoder, however many negatives there are.

    Args:
        a: (B, N, F) unit vectors of N points in the first crop.
        b: (B, N, F) unit vectors of the same points in the second crop.
        temperature: divides similarities.
        positions_voxels: (B, N, 3) of the points, in voxels of the scan.
        valid: (B,) False for a pair without points.
        margin_voxels: in voxels of the scan.
    """
    count = a.shape[1]
    with without_autocast(a):
        logits = a @ b.mT / temperature  # (B, N, N)
        distance = (positions_voxels[:, :, None] - positions_voxels[:, None]).norm(dim=3)
        same = torch.eye(count, dtype=torch.bool, device=a.device)
        negative = (distance >= margin_voxels) & ~same
        positive = logits.diagonal(dim1=1, dim2=2)
        terms = _point_terms(logits, positive, negative) + _point_terms(logits.mT, positive, negative)
    return 0.5 * terms.mean(dim=1) * valid


def _point_terms(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """(B, N) terms of `point_contrast` in one direction."""
    scale = (logits.shape[2] - 1) / negative.sum(dim=2).clamp(min=1).to(logits.dtype)
    negatives = logits.masked_fill(~negative, NEVER).logsumexp(dim=2) + scale.log()
    return F.softplus(negatives - positive)


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [SimCLR]
