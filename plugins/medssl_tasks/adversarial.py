"""Adversarial: tell what a scan really holds from what a forger filled in.

A forger fills hidden blocks of a patch; the encoder with its decoder is the critic, whose score of each voxel is the
energy: low for what is there, high for what was made up. After Goodfellow et al. 2014 (arXiv 1406.2661), Pathak et al.
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
from medssl.views.region import Region

TRIVIAL = 2.0 * 0.6931471805599453  # a critic that scores everything 0 pays ln 2 for the real and ln 2 for the made up


class Adversarial(PretextTask):
    """A forger fills hidden blocks; the encoder learns to tell them from the real ones, voxel by voxel."""

    name = "adversarial"
    family = "generative"

    class Config(PatchConfig):
        """Settings of adversarial."""

        block: Annotated[int, Field(ge=2, le=64)] | Literal["auto"] = Field(
            default="auto",
            description="Edge of a forged block in voxels. auto: per axis an eighth of the patch, as a power of "
            "two from 4 to 16.",
        )
        mask_ratio: float = Field(default=0.4, gt=0.0, lt=1.0, description="Share of the blocks that is forged.")
        ignore_air: float = Field(
            default=0.03,
            ge=0.0,
            le=1.0,
            description="Blocks whose standard deviation is below this, in units of the normalised scan, are air "
            "and not judged.",
        )
        adversarial_weight: float = Field(
            default=0.1,
            ge=0.0,
            le=10.0,
            description="Weight of fooling the critic in what the forger learns, beside its squared error.",
        )
        score_penalty: float = Field(
            default=0.01,
            ge=0.0,
            le=10.0,
            description="Weight of the squared score: keeps the critic from growing without limit.",
        )
        width: int = Field(default=16, ge=4, le=256, description="Features of the forger at full resolution.")

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.decoder = encoder.make_decoder(1)
        self.forger = Forger(encoder.description.in_channels, config.width)

    def automatic(self, patch: tuple[int, int, int], steps: int) -> Mapping[str, list[int]]:
        """Edges of a forged block along D, H, W."""
        return {"block": list(block_edges(self.config.block, patch))}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`real`, the patch; `hidden`, the blocks to forge; `scored`, those of the scan that are no air."""
        real = region.crop("patch")
        hidden, block = hide_blocks(real, region.random, asked=self.config.block, ratio=self.config.mask_ratio)
        scored = hidden & region.valid("patch")
        if self.config.ignore_air > 0:
            scored &= informative(real, block, floor=self.config.ignore_air).any(dim=1, keepdim=True)
        return {"real": real, "hidden": hidden, "scored": scored}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """The critic's loss; the forger learns in the same backward pass, and its loss is a term."""
        real, hidden, scored = views["real"], views["hidden"], views["scored"]
        filled = self.forger(torch.cat([real.masked_fill(hidden, 0.0), hidden.to(real.dtype)], dim=1)).to(real.dtype)
        forged = torch.where(hidden, filled, real)
        pyramid, score = self._scores(torch.cat([real, forged.detach()]))
        of_real, of_forged = score.to(real.dtype).chunk(2)
        critic = critic_loss(of_real, of_forged, scored)
        restraint = self.config.score_penalty * scored_mean(of_real.square() + of_forged.square(), scored)
        with frozen(self.encoder), frozen(self.decoder):
            of_forged_for_forger = self._scores(forged)[1].to(real.dtype)
        fooling = scored_mean(F.softplus(of_forged_for_forger), scored).mean()
        error = scored_mean(voxel_error(filled, real), scored).mean()
        forger = error + self.config.adversarial_weight * fooling
        return Step(
            # the forger's loss adds its gradient but not its value: the rest can be read against the trivial critic
            loss=critic.mean() + restraint.mean() + (forger - forger.detach()),
            energy=scored_mean(of_real, scored).detach(),
            negative_energy=scored_mean(of_forged, scored).detach(),
            trivial_loss=TRIVIAL,
            terms={
                "critic": critic.detach().mean(),
                "forger_error": error.detach(),
                "forger_fooling": fooling.detach(),
            },
            pictures={
                "scan": real,
                "forged": forged.detach(),
                "score": of_forged.detach(),
                "truth": scored.to(real.dtype),
            },
            embeddings=pooled(pyramid).detach().chunk(2)[0],
            valid_fraction=valid_fraction(scored),
        )

    def _scores(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        pyramid = self.encoder(image)
        return pyramid, self.decoder(pyramid, image)


class Forger(nn.Module):
    """A small U-Net that fills the hidden voxels. Weak on purpose: a perfect forger would leave the critic nothing to
    learn from.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        inputs = (channels + 1, *widths[:-1])
        self.down = nn.ModuleList(nn.Conv3d(a, b, 3, padding=1) for a, b in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(nn.Conv3d(low + high, high, 3, padding=1) for high, low in pairwise(widths))
        self.out = nn.Conv3d(width, channels, 1)

    def forward(self, seen: Tensor) -> Tensor:
        """(B, C, D, H, W) from the patch without its hidden voxels and the mask of them, (B, C + 1, D, H, W)."""
        skips: list[Tensor] = []
        features = seen
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


def critic_loss(of_real: Tensor, of_forged: Tensor, scored: Tensor) -> Tensor:
    """(B,) logistic loss of scores that should be low where real and high where forged, each averaged over the scored
    voxels.
    """
    return scored_mean(F.softplus(of_real), scored) + scored_mean(F.softplus(-of_forged), scored)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through the module to its input and do not reach its weights."""
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
