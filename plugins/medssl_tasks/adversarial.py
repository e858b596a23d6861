"""Adversarial: distinguish the voxels of a scan from those that a generator filled in.

A generator fills hidden blocks of a patch; the encoder with its decoder is the critic, whose score of each voxel is the
energy: low for real voxels, high for generated ones. After Goodfellow et al. 2014 (arXiv 1406.2661), Pathak et al.
2016 (context encoders with an adversarial loss) and Clark et al. 2020 (ELECTRA, arXiv 2003.10555).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.heads import pooled
from medssl.pretext.hidden_blocks import block_edges, hide_blocks
from medssl.pretext.patches import PatchConfig
from medssl.pretext.reconstruction import informative, scored_mean, valid_fraction, voxel_error
from medssl.pretext.task import PretextTask, Step
from medssl.shapes import Shape3D
from medssl.views.region import Region

TRIVIAL = 2.0 * 0.6931471805599453  # a critic that scores everything 0: ln 2 for real and ln 2 for generated voxels


class Adversarial(PretextTask):
    """A generator fills hidden blocks; the encoder learns to tell them from the real ones, voxel by voxel."""

    name = "adversarial"
    family = "generative"

    class Config(PatchConfig):
        """Settings of adversarial."""

        block: Annotated[int, Field(ge=2, le=64)] | Literal["auto"] = Field(
            default="auto",
            description="Edge of a generated block in voxels. auto: per axis an eighth of the patch, as a power of "
            "two from 4 to 16.",
        )
        mask_ratio: float = Field(default=0.4, gt=0.0, lt=1.0, description="Fraction of the blocks that is generated.")
        ignore_air: float = Field(
            default=0.03,
            ge=0.0,
            le=1.0,
            description="Blocks whose standard deviation is below this, in units of the normalised scan, are air "
            "and not scored.",
        )
        adversarial_weight: float = Field(
            default=0.1,
            ge=0.0,
            le=10.0,
            description="Weight of fooling the critic in the generator's loss, beside its squared error.",
        )
        score_penalty: float = Field(
            default=0.01,
            ge=0.0,
            le=10.0,
            description="Weight of the squared score, which keeps scores from growing without limit.",
        )
        width: int = Field(default=16, ge=4, le=256, description="Features of the generator at full resolution.")

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.decoder = encoder.make_decoder(1)
        self.generator = Generator(encoder.description.in_channels, config.width)

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, list[int]]:
        """Edges of a generated block along D, H, W."""
        return {"block": list(block_edges(self.config.block, patch))}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`real`, the patch; `hidden`, the blocks to generate; `scored`, those without air and padding."""
        real = region.crop("patch")
        hidden, block = hide_blocks(real, region.random, block=self.config.block, ratio=self.config.mask_ratio)
        scored = hidden & region.valid("patch")
        if self.config.ignore_air > 0:
            scored &= informative(real, block, floor=self.config.ignore_air).any(dim=1, keepdim=True)
        return {"real": real, "hidden": hidden, "scored": scored}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """The critic's loss; the generator learns in the same backward pass, and its loss is a term."""
        real, hidden, scored = views["real"], views["hidden"], views["scored"]
        filled = self.generator(torch.cat([real.masked_fill(hidden, 0.0), hidden.to(real.dtype)], dim=1)).to(real.dtype)
        generated = torch.where(hidden, filled, real)
        pyramid, score = self._scores(torch.cat([real, generated.detach()]))
        real_score, fake_score = score.to(real.dtype).chunk(2)
        critic = critic_loss(real_score, fake_score, scored)
        penalty = self.config.score_penalty * scored_mean(real_score.square() + fake_score.square(), scored)
        with frozen(self.encoder), frozen(self.decoder):
            generator_score = self._scores(generated)[1].to(real.dtype)
        fooling = scored_mean(F.softplus(generator_score), scored).mean()
        error = scored_mean(voxel_error(filled, real), scored).mean()
        generator = error + self.config.adversarial_weight * fooling
        return Step(
            # the generator's loss adds its gradient and not its value: the loss compares with the trivial critic
            loss=critic.mean() + penalty.mean() + (generator - generator.detach()),
            energy=scored_mean(real_score, scored).detach(),
            negative_energy=scored_mean(fake_score, scored).detach(),
            trivial_loss=TRIVIAL,
            terms={
                "critic": critic.detach().mean(),
                "generator_error": error.detach(),
                "generator_adversarial": fooling.detach(),
            },
            pictures={
                "scan": real,
                "generated": generated.detach(),
                "score": fake_score.detach(),
                "mask": scored.to(real.dtype),
            },
            embeddings=pooled(pyramid).detach().chunk(2)[0],
            valid_fraction=valid_fraction(scored),
        )

    def _scores(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        pyramid = self.encoder(image)
        return pyramid, self.decoder(pyramid, image)


class Generator(nn.Module):
    """A small U-Net that fills the hidden voxels; weak on purpose, since a perfect one would teach the critic nothing.

    Args:
        channels: of the image.
        width: features at full resolution.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        inputs = (channels + 1, *widths[:-1])
        self.down = nn.ModuleList(nn.Conv3d(a, b, 3, padding=1) for a, b in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(nn.Conv3d(low + high, high, 3, padding=1) for high, low in pairwise(widths))
        self.out = nn.Conv3d(width, channels, 1)

    def forward(self, visible: Tensor) -> Tensor:
        """(B, C, D, H, W) from the patch without its hidden voxels and the mask of them, (B, C + 1, D, H, W)."""
        skips: list[Tensor] = []
        features = visible
        for convolution in self.down:
            if skips:
                features = F.avg_pool3d(features, 2, ceil_mode=True, count_include_pad=False)
            features = F.leaky_relu(convolution(features), 0.01)
            skips.append(features)
        for convolution, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            features = F.interpolate(features, size=skip.shape[2:], mode="trilinear", align_corners=False)
            features = F.leaky_relu(convolution(torch.cat([features, skip], dim=1)), 0.01)
        out: Tensor = self.out(features)
        return out


def critic_loss(real_score: Tensor, fake_score: Tensor, scored: Tensor) -> Tensor:
    """(B,) logistic loss, low for low scores of real voxels and high scores of generated ones; means over `scored`."""
    return scored_mean(F.softplus(real_score), scored) + scored_mean(F.softplus(-fake_score), scored)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Context in which gradients pass through the module to its input and do not reach its weights."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [Adversarial]
