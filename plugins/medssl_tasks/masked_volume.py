"""Masked volumes: hide blocks of a scan and reconstruct what was in them.

After He et al. 2022 (MAE, arXiv 2111.06377) and Xie et al. 2022 (SimMIM, arXiv 2111.09886), for volumes and for any
encoder with a decoder.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from medssl.encoders.encoder import Encoder
from medssl.errors import ConfigError
from medssl.hookspecs import hookimpl
from medssl.pretext.heads import pooled
from medssl.pretext.hidden_blocks import block_edges, hide_blocks
from medssl.pretext.patches import PatchConfig
from medssl.pretext.reconstruction import (
    against_another,
    block_moments,
    informative,
    scored_mean,
    valid_fraction,
    voxel_error,
)
from medssl.pretext.sparse import DropsTokens, check_convolutional, encode_sparsely, filled
from medssl.pretext.task import PretextTask, Step
from medssl.pretext.tiles import volume_edges
from medssl.shapes import Shape3D
from medssl.views.region import Region


class MaskedVolume(PretextTask):
    """Hide blocks of a patch, show the rest to the encoder, and reconstruct the hidden voxels with its decoder."""

    name = "masked-volume"
    family = "masked modelling"

    class Config(PatchConfig):
        """Settings of masked-volume."""

        block: Annotated[int, Field(ge=2, le=64)] | Literal["auto"] = Field(
            default="auto",
            description="Edge of a hidden block in voxels. auto: per axis an eighth of the patch, as a power of two "
            "from 4 to 16: smaller holes are filled by interpolation, larger ones leave nothing to infer them from.",
        )
        mask_ratio: float = Field(default=0.6, gt=0.0, lt=1.0, description="Share of the blocks that is hidden.")
        masking: Literal["input", "sparse", "drop-tokens"] = Field(
            default="input",
            description="How hidden voxels are kept from the encoder. input: they are set to the mean, for any "
            "encoder. sparse: convolutions and normalisation leave them out, for convolutional "
            "encoders; nothing of the holes' shape leaks into the features. drop-tokens: the encoder "
            "never computes them, for ViT encoders that offer it. The last two need blocks that are "
            "multiples of the encoder's coarsest stride; block=auto sees to it.",
        )
        ignore_air: float = Field(
            default=0.03,
            ge=0.0,
            le=1.0,
            description="Hidden blocks whose standard deviation is below this (in units of the normalised scan, whose "
            "own is about 1) are air and not scored. 0 scores everything.",
        )
        normalise: bool = Field(
            default=False,
            description="Reconstruct each block with its own mean taken off and divided by its own standard deviation: "
            "texture rather than brightness. Pictures show it with both put back.",
        )

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.step: Shape3D = (1, 1, 1) if config.masking == "input" else encoder.strides[-1]
        _check_masking(encoder, config)
        self.decoder = encoder.make_decoder(encoder.description.in_channels)
        # what the decoder finds in place of hidden features; normal with 0.02 as in He et al. 2022
        width = () if config.masking == "input" else encoder.channels
        self.tokens = nn.ParameterList(0.02 * torch.randn(channels) for channels in width)

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, list[int]]:
        """Edges of a hidden block along D, H, W."""
        return {"block": list(block_edges(self.config.block, patch, step=self.step))}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`target`, the patch; `hidden` from the encoder; `scored`, what of it lies inside the scan and is no air."""
        target = region.crop("patch")
        asked, ratio = self.config.block, self.config.mask_ratio
        hidden, block = hide_blocks(target, region.random, asked=asked, ratio=ratio, step=self.step)
        scored = hidden & region.valid("patch")
        if self.config.ignore_air > 0:
            scored = scored & informative(target, block, floor=self.config.ignore_air)
        return {"target": target, "hidden": hidden, "scored": scored}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Squared error on the scored voxels: per sample its energy, on average the loss."""
        volume, hidden, scored = views["target"], views["hidden"], views["scored"]
        block = block_edges(self.config.block, volume_edges(volume), step=self.step)
        target, mean, deviation = self._normalised(volume, block)
        seen = volume.masked_fill(hidden, 0.0)  # 0 is the mean of a normalised scan
        pyramid = self._encoded(seen, hidden)
        guess = self.decoder(filled(pyramid, ~hidden, self.tokens) if self.tokens else pyramid, seen)
        error = voxel_error(guess, target)
        energy = scored_mean(error, scored)
        per_block = block[0] * block[1] * block[2]
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=against_another(guess, target, scored),
            # a block normalised with its unbiased variance has a mean square of (n - 1) / n
            trivial_loss=1.0 - 1.0 / per_block if self.config.normalise else None,
            terms={
                "trivial_loss": scored_mean(target.square(), scored).mean(),
                "valid_fraction": scored.float().mean(),
            },
            pictures={
                "scan": volume,
                "hidden": torch.where(hidden, volume.amin(dim=(1, 2, 3, 4), keepdim=True), volume),
                "guess": torch.where(hidden, guess.detach().to(volume.dtype) * deviation + mean, volume),
                "error": error.detach().sqrt() * scored,
            },
            embeddings=pooled(pyramid).detach(),
            valid_fraction=valid_fraction(scored),
        )

    def _encoded(self, seen: Tensor, hidden: Tensor) -> list[Tensor]:
        """The pyramid of what is visible."""
        if self.config.masking == "sparse":
            return encode_sparsely(self.encoder, seen, ~hidden)
        if self.config.masking == "drop-tokens":
            return cast(DropsTokens, self.encoder).encode_visible(seen, hidden)
        pyramid: list[Tensor] = self.encoder(seen)
        return pyramid

    def _normalised(self, volume: Tensor, block: Shape3D) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """What is to be reconstructed, and the mean and deviation that turn it back into the volume."""
        if not self.config.normalise:
            return volume, 0.0, 1.0
        mean, variance = block_moments(volume, block)
        deviation = (variance + 1e-6).sqrt()  # 1e-6: He et al. 2022, reference code
        return (volume - mean) / deviation, mean, deviation


def _check_masking(encoder: Encoder, config: MaskedVolume.Config) -> None:
    """Raise ConfigError where the encoder cannot leave out what is hidden in the way that was asked for."""
    if config.masking == "input":
        return
    if config.masking == "sparse":
        check_convolutional(encoder)
    elif not isinstance(encoder, DropsTokens):
        raise ConfigError(
            f"task.masking is 'drop-tokens', but the encoder '{encoder.description.name}' has no `encode_visible` that "
            "leaves tokens out. Use --set task.masking=input, or sparse with a convolutional encoder."
        )
    stride = encoder.strides[-1]
    if config.block != "auto" and any(config.block % step for step in stride):
        raise ConfigError(
            f"task.block is {config.block}, but with task.masking={config.masking} it must be a multiple of the "
            f"encoder's coarsest stride {list(stride)}. Use block=auto, or {max(stride)}."
        )


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [MaskedVolume]
