"""Masked volumes: hide blocks of a scan and reconstruct their voxels.

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
    block_moments,
    informative,
    mismatched_error,
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
    """Hide blocks of a patch, encode the visible part, and reconstruct the hidden voxels with the encoder's decoder."""

    name = "masked-volume"
    family = "masked modelling"

    class Config(PatchConfig):
        """Settings of masked-volume."""

        block: Annotated[int, Field(ge=2, le=64)] | Literal["auto"] = Field(
            default="auto",
            description="Edge of a hidden block in voxels. auto: per axis an eighth of the patch, as a power of two "
            "from 4 to 16: interpolation fills smaller holes, and larger ones cannot be inferred.",
        )
        mask_ratio: float = Field(default=0.6, gt=0.0, lt=1.0, description="Fraction of the blocks that is hidden.")
        masking: Literal["input", "sparse", "drop-tokens"] = Field(
            default="input",
            description="How voxels are hidden from the encoder. input: they are set to the mean, for any encoder. "
            "sparse: convolutions and normalisation leave them out, for convolutional encoders; the holes' shape does "
            "not leak into the features. drop-tokens: the encoder never computes them, for ViT encoders that offer it. "
            "The last two need blocks that are multiples of the encoder's coarsest stride; block=auto sees to it.",
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
            description="Reconstruct each block standardised by its mean and standard deviation: texture instead of "
            "brightness. Pictures show it with both restored.",
        )

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.step: Shape3D = (1, 1, 1) if config.masking == "input" else encoder.strides[-1]
        _check_masking(encoder, config)
        self.decoder = encoder.make_decoder(encoder.description.in_channels)
        # learned vectors in place of hidden features; standard deviation 0.02 as in He et al. 2022
        width = () if config.masking == "input" else encoder.channels
        self.tokens = nn.ParameterList(0.02 * torch.randn(channels) for channels in width)

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, list[int]]:
        """Edges of a hidden block along D, H, W."""
        return {"block": list(block_edges(self.config.block, patch, step=self.step))}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`target`, the patch; `hidden` from the encoder; `scored`, the hidden voxels without air and padding."""
        target, config = region.crop("patch"), self.config
        hidden, block = hide_blocks(target, region.random, block=config.block, ratio=config.mask_ratio, step=self.step)
        scored = hidden & region.valid("patch")
        if config.ignore_air > 0:
            scored = scored & informative(target, block, floor=config.ignore_air)
        return {"target": target, "hidden": hidden, "scored": scored}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Squared error of the scored voxels; its mean per sample is the energy, and the mean of those the loss."""
        volume, hidden, scored = views["target"], views["hidden"], views["scored"]
        block = block_edges(self.config.block, volume_edges(volume), step=self.step)
        target, mean, deviation = self._normalised(volume, block)
        visible = volume.masked_fill(hidden, 0.0)  # 0 is the mean of a normalised scan
        pyramid = self._encoded(visible, hidden)
        prediction = self.decoder(filled(pyramid, ~hidden, self.tokens) if self.tokens else pyramid, visible)
        error = voxel_error(prediction, target)
        energy = scored_mean(error, scored)
        per_block = block[0] * block[1] * block[2]
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=mismatched_error(prediction, target, scored),
            # a block normalised with its unbiased variance has a mean square of (n - 1) / n
            trivial_loss=1.0 - 1.0 / per_block if self.config.normalise else None,
            terms={
                "trivial_loss": scored_mean(target.square(), scored).mean(),
                "valid_fraction": scored.float().mean(),
            },
            pictures={
                "scan": volume,
                "hidden": torch.where(hidden, volume.amin(dim=(1, 2, 3, 4), keepdim=True), volume),
                "prediction": torch.where(hidden, prediction.detach().to(volume.dtype) * deviation + mean, volume),
                "error": error.detach().sqrt() * scored,
            },
            embeddings=pooled(pyramid).detach(),
            valid_fraction=valid_fraction(scored),
        )

    def _encoded(self, visible: Tensor, hidden: Tensor) -> list[Tensor]:
        """The pyramid of what is visible."""
        if self.config.masking == "sparse":
            return encode_sparsely(self.encoder, visible, ~hidden)
        if self.config.masking == "drop-tokens":
            return cast(DropsTokens, self.encoder).encode_visible(visible, hidden)
        pyramid: list[Tensor] = self.encoder(visible)
        return pyramid

    def _normalised(self, volume: Tensor, block: Shape3D) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """The target of the reconstruction, and the mean and deviation that turn it back into the volume."""
        if not self.config.normalise:
            return volume, 0.0, 1.0
        mean, variance = block_moments(volume, block)
        deviation = (variance + 1e-6).sqrt()  # 1e-6: He et al. 2022, reference code
        return (volume - mean) / deviation, mean, deviation


def _check_masking(encoder: Encoder, config: MaskedVolume.Config) -> None:
    """Raise ConfigError if the encoder cannot leave out hidden voxels in the configured way."""
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
