"""JEPA: predict a teacher's features of hidden cells from the visible ones around them.

Assran et al. 2023 (I-JEPA, arXiv 2301.08243), for feature pyramids: the encoder sees a patch with hidden blocks, and a
small network predicts the features that the momentum teacher, which sees the whole patch, has there.
"""

import math
from collections.abc import Iterable, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.heads import pooled
from medssl.pretext.momentum import AutoMomentum, Teacher, first_momentum, momentum_at
from medssl.pretext.patches import PatchConfig
from medssl.pretext.projection import upcast
from medssl.pretext.sparse import DropsTokens
from medssl.pretext.task import PretextTask, Step
from medssl.randomness import SampleRandom
from medssl.shapes import Shape3D
from medssl.views.on_device import on_device
from medssl.views.region import Region


class JEPA(PretextTask):
    """Predict features, not voxels, of hidden blocks."""

    name = "jepa"
    family = "self-distillation"

    class Config(PatchConfig):
        """Settings of jepa."""

        blocks: int = Field(default=4, ge=1, le=32, description="Blocks of a patch that are hidden; they may overlap.")
        block_fraction: float = Field(
            default=0.15,
            gt=0.0,
            lt=1.0,
            description="Volume of a block as a fraction of the patch; its proportions are random.",
        )
        levels: int = Field(
            default=2,
            ge=1,
            le=8,
            description="Coarsest levels of the encoder whose features are predicted, each by its own predictor.",
        )
        width: int = Field(default=128, ge=8, le=4096, description="Features of the predictor.")
        depth: int = Field(default=3, ge=1, le=12, description="Residual blocks of the predictor.")
        momentum: AutoMomentum = "auto"

    config: Config

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        channels = encoder.channels[-config.levels :]
        self.predictors = nn.ModuleList(Predictor(count, width=config.width, depth=config.depth) for count in channels)
        self.teacher = Teacher(encoder)

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, float]:
        """The teacher's momentum at the first step."""
        return first_momentum(steps, base=self.config.momentum)

    def views(self, region: Region) -> dict[str, Tensor]:
        """`patch`, and `hidden`, the mask of whole cells of the finest predicted level."""
        patch = region.crop("patch")
        stride = self.encoder.strides[-min(self.config.levels, len(self.encoder.strides))]
        d, h, w = (max(1, edge // step) for edge, step in zip(patch.shape[2:], stride, strict=True))
        cells = target_blocks(region.random, (d, h, w), blocks=self.config.blocks, volume=self.config.block_fraction)
        return {"patch": patch, "hidden": F.interpolate(cells.float(), size=patch.shape[2:]).bool()}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Huber loss between predicted and normalised features: mean over hidden cells, samples and levels."""
        patch, hidden, count = views["patch"], views["hidden"], len(self.predictors)
        visible = patch.masked_fill(hidden, 0.0)  # 0 is the mean of a normalised scan
        # An encoder of tokens never computes what is hidden (Assran et al. 2023, section 3).
        encoder = self.encoder
        context = encoder.encode_visible(visible, hidden) if isinstance(encoder, DropsTokens) else encoder(visible)
        energies, unrelated, of_mean, errors = [], [], [], []
        targets = self.teacher(patch)[-count:]
        for predict, level, teacher in zip(self.predictors, context[-count:], targets, strict=True):
            target, fraction = normalised(teacher), hidden_fraction(hidden, level)
            prediction = predict(level, fraction)
            errors.append(feature_error(prediction, target))
            energies.append(weighted_mean(errors[-1], fraction))
            unrelated.append(weighted_mean(feature_error(prediction, target.roll(1, dims=0)), fraction))
            mean = target.mean(dim=(0, 2, 3, 4), keepdim=True).expand_as(target)
            of_mean.append(weighted_mean(feature_error(mean, target), fraction))
        energy = torch.stack(energies).mean(dim=0)  # (B,)
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=torch.stack(unrelated).mean(dim=0).detach() if len(patch) > 1 else None,
            trivial_loss=0.5,  # upper bound of the loss of predicting 0: half the mean square of a feature
            terms={"mean_feature": torch.stack(of_mean).mean().detach()},
            pictures={
                "scan": patch,
                "visible": torch.where(hidden, patch.amin(dim=(1, 2, 3, 4), keepdim=True), patch),
                "error": F.interpolate(errors[0].detach(), size=patch.shape[2:]) * hidden,
            },
            embeddings=pooled(context).detach(),
        )

    def after_step(self, step: int, total: int) -> None:
        """Update the teacher."""
        self.teacher.update(self.encoder, momentum_at(step, total, base=self.config.momentum))

    def exported_encoder(self) -> Encoder:
        """The teacher: an average over the last steps that has seen whole patches (Assran et al. 2023)."""
        teacher: Encoder = self.teacher.module  # type: ignore[assignment]
        return teacher


class Predictor(nn.Module):
    """From features of the visible cells to features of all cells, given which cells were hidden."""

    def __init__(self, channels: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.hidden_here = nn.Parameter(torch.zeros(1, width, 1, 1, 1))
        self.enter = nn.Conv3d(channels, width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, width), nn.GELU(), nn.Conv3d(width, width, 3, padding=1))
            for _ in range(depth)
        )
        self.leave = nn.Conv3d(width, channels, 1)

    def forward(self, features: Tensor, fraction: Tensor) -> Tensor:
        """(B, C, d, h, w) from such features and the hidden fraction (B, 1, d, h, w) of each cell."""
        state = self.enter(features) + fraction * self.hidden_here
        for block in self.blocks:
            state = state + block(state)
        out: Tensor = self.leave(state)
        return out


def target_blocks(random: SampleRandom, cells: Shape3D, *, blocks: int, volume: float) -> Tensor:
    """(B, 1, *cells) bool, true where hidden: the union of random boxes, at most three quarters of the cells.

    Args:
        random: of the samples.
        cells: cells along D, H, W.
        blocks: number of boxes, which may overlap.
        volume: of a box, as a fraction of the patch.
    """
    edges_of_patch = on_device(cells, random.device).float()
    # Proportions and positions from separate random numbers: shared ones would tie a box's shape to its position.
    stretch = random.uniform("jepa proportions", -0.4, 0.4, (blocks, 3))
    edges = edges_of_patch * volume ** (1 / 3) * (stretch - stretch.mean(dim=2, keepdim=True)).exp()
    edges = edges.round().clamp(min=1.0).minimum(edges_of_patch)  # (B, blocks, 3)
    start = (random.uniform("jepa places", 0.0, 1.0, (blocks, 3)) * (edges_of_patch - edges + 1)).floor()
    inside = []
    for axis, length in enumerate(cells):
        index = torch.arange(length, device=random.device)
        first = start[:, :, axis, None]
        inside.append((index >= first) & (index < first + edges[:, :, axis, None]))  # (B, blocks, length)
    d, h, w = inside
    union = (d[:, :, :, None, None] & h[:, :, None, :, None] & w[:, :, None, None, :]).any(dim=1).flatten(1)
    # Where the boxes hide more than three quarters, cells become visible again at random: `rank` numbers the hidden
    # cells in random order, and the first of them stay. Raster order would favour one side of the patch.
    max_hidden = max(1, 3 * math.prod(cells) // 4)
    order = random.permutations("jepa given back", math.prod(cells))
    rank = (union.gather(1, order).long().cumsum(dim=1) - 1).gather(1, order.argsort(dim=1))
    hidden: Tensor = union & (rank < max_hidden)
    return hidden.view(-1, 1, *cells)


def hidden_fraction(hidden: Tensor, level: Tensor) -> Tensor:
    """(B, 1, d, h, w): the fraction of each cell of a level that is hidden."""
    d, h, w = level.shape[2:]
    return F.adaptive_avg_pool3d(hidden.to(level.dtype), (d, h, w))


def normalised(features: Tensor) -> Tensor:
    """Features (B, C, d, h, w), each cell with mean 0 and variance 1 over its channels, without gradient."""
    last = upcast(features).movedim(1, -1)
    return F.layer_norm(last, last.shape[-1:]).movedim(-1, 1).detach()


def feature_error(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, 1, d, h, w) Huber loss, mean over channels."""
    return F.smooth_l1_loss(upcast(prediction), target, reduction="none").mean(dim=1, keepdim=True)


def weighted_mean(error: Tensor, fraction: Tensor) -> Tensor:
    """(B,) mean over the cells of each sample, weighted by their hidden fraction."""
    weight = fraction.to(error.dtype)
    return (error * weight).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp(min=1e-6)


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [JEPA]
