"""Colorization: recover the full intensities of a scan from a reduced version of it.

The counterpart of colouring grey pictures (Zhang et al. 2016, arXiv 1603.08511) where scans have no colour: the network
sees a narrow window, a few grey levels, or intensities bent by an unknown curve, and gives back what the scanner
measured.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.heads import pooled
from medssl.pretext.patches import PatchConfig
from medssl.pretext.reconstruction import mismatched_error, scored_mean, valid_fraction, voxel_error
from medssl.pretext.task import PretextTask, Step
from medssl.randomness import SampleRandom
from medssl.views.region import Region

Width = Annotated[float, Field(gt=0.0, le=20.0)]
CHANGED = 1e-4
BINS = 16
UNIFORM_WEIGHT = 0.5  # Zhang et al. 2016, section 2.2: half the empirical distribution, half a flat one


class Colorization(PretextTask):
    """Show a patch with reduced intensities and reconstruct the full ones."""

    name = "colorization"
    family = "restoration"

    class Config(PatchConfig):
        """Settings of colorization."""

        reduction: Literal["window", "bits", "curve", "window+bits"] = Field(
            default="window+bits",
            description="What is removed. window: intensities outside a random window. bits: fine grey levels. curve: "
            "the scale, by an unknown increasing curve. window+bits: the first two.",
        )
        window: tuple[Width, Width] = Field(
            default=(0.8, 2.0),
            description="Smallest and largest width of the window, in units of the normalised scan; its centre is "
            "the intensity of a random voxel.",
        )
        bits: int = Field(default=2, ge=1, le=8, description="Bits of grey level that remain: 2 to this power levels.")
        bend: float = Field(
            default=2.0, gt=1.0, le=8.0, description="Largest exponent of the curve; the smallest is its inverse."
        )
        rebalance: bool = Field(
            default=True,
            description="Weight voxels by how rare their intensity is, so that fat and fluid count beside muscle.",
        )

        @model_validator(mode="after")
        def _ordered(self) -> "Colorization.Config":
            if self.window[0] > self.window[1]:
                raise ValueError(f"window is {list(self.window)}; give the smaller width first")
            return self

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.decoder = encoder.make_decoder(encoder.description.in_channels)

    def views(self, region: Region) -> dict[str, Tensor]:
        """`target`, the patch; `reduced`, the encoder's input; `weight` of the changed voxels inside the scan."""
        target = region.crop("patch")
        reduced = self._reduced(target, region.random)
        # elsewhere the input is the answer
        changed = ((target - reduced).abs() > CHANGED) & region.valid("patch")
        weight = changed.to(target.dtype)
        if self.config.rebalance:
            weight = weight * rarity(target, changed)
        return {"target": target, "reduced": reduced, "weight": weight}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Weighted absolute error of the changed voxels."""
        target, reduced, weight = views["target"], views["reduced"], views["weight"]
        pyramid = self.encoder(reduced)
        prediction = self.decoder(pyramid, reduced)
        error = voxel_error(prediction, target, kind="l1")
        energy = scored_mean(error, weight)
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=mismatched_error(prediction, target, weight, kind="l1"),
            terms={"trivial_loss": scored_mean((reduced - target).abs(), weight).mean()},
            pictures={
                "scan": target,
                "reduced": reduced,
                "prediction": prediction.detach().to(target.dtype),
                "error": error.detach(),
            },
            embeddings=pooled(pyramid).detach(),
            valid_fraction=valid_fraction(weight),
        )

    def _reduced(self, target: Tensor, random: SampleRandom) -> Tensor:
        config = self.config
        width = random.uniform("width", *config.window)
        centre = _quantile(target, random.uniform("middle", 0.1, 0.9))
        low, high = centre - width / 2, centre + width / 2
        if config.reduction == "bits":
            low, high = target.amin(dim=(1, 2, 3, 4)), target.amax(dim=(1, 2, 3, 4))
        if config.reduction == "curve":
            exponent = config.bend ** random.uniform("exponent", -1.0, 1.0)
            return bend(target, exponent)
        out = clip(target, low, high)
        return out if config.reduction == "window" else quantise(out, low, high, levels=2**config.bits)


def clip(images: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Images (B, C, D, H, W) kept between `low` and `high` (B,)."""
    return torch.minimum(torch.maximum(images, _wide(low)), _wide(high))


def quantise(images: Tensor, low: Tensor, high: Tensor, *, levels: int) -> Tensor:
    """Images between `low` and `high` (B,) rounded to `levels` even grey values, `low` and `high` among them."""
    extent = _wide(high - low).clamp_min(1e-6)
    fraction = (images - _wide(low)) / extent
    return (fraction * (levels - 1)).round() / (levels - 1) * extent + _wide(low)


def bend(images: Tensor, exponent: Tensor) -> Tensor:
    """Images rescaled to [0, 1], raised to `exponent` (B,) and scaled back: invertible, same range and order."""
    low, high = images.amin(dim=(1, 2, 3, 4)), images.amax(dim=(1, 2, 3, 4))
    extent = _wide(high - low).clamp_min(1e-6)
    return ((images - _wide(low)) / extent).clamp(0.0, 1.0) ** _wide(exponent) * extent + _wide(low)


def rarity(images: Tensor, chosen: Tensor) -> Tensor:
    """(B, 1, D, H, W) weight of each voxel, inverse to the frequency of its intensity; mean 1 over the `chosen` voxels.

    A histogram of 16 bins between the sample's extremes, averaged with a uniform one (Zhang et al. 2016, equation 4).
    """
    low, high = images.amin(dim=(1, 2, 3, 4)), images.amax(dim=(1, 2, 3, 4))
    fraction = (images - _wide(low)) / _wide(high - low).clamp_min(1e-6)
    bins = (fraction * BINS).long().clamp(0, BINS - 1).flatten(1)
    weight = chosen.to(images.dtype).flatten(1)
    count = torch.zeros(len(images), BINS, dtype=images.dtype, device=images.device).scatter_add_(1, bins, weight)
    total = count.sum(dim=1, keepdim=True).clamp_min(1.0)
    value = 1.0 / ((1 - UNIFORM_WEIGHT) * count / total + UNIFORM_WEIGHT / BINS)
    value = value / ((value * count).sum(dim=1, keepdim=True) / total).clamp_min(1e-6)
    return value.gather(1, bins).view_as(images)


def _quantile(images: Tensor, fraction: Tensor) -> Tensor:
    """(B,) intensity below which a fraction (B,) of every eighth voxel lies; sorting all voxels would take long."""
    sample, _ = images[:, :, ::2, ::2, ::2].flatten(1).sort(dim=1)
    index = (fraction * (sample.shape[1] - 1)).long().unsqueeze(1)
    return sample.gather(1, index).squeeze(1)


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [Colorization]
