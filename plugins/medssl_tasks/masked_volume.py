"""Masked volumes: hide blocks of a scan and reconstruct what was in them.

After He et al. 2022 (MAE, arXiv 2111.06377) and Xie et al. 2022 (SimMIM, arXiv 2111.09886), for volumes and for any
encoder with a decoder.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from medssl.encoders.encoder import Decoder, Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.heads import pooled
from medssl.pretext.patches import PatchGeometry
from medssl.pretext.reconstruction import against_another, block_moments, informative, scored_mean, voxel_error
from medssl.pretext.step import Step
from medssl.pretext.task import PretextTask, TaskConfig
from medssl.pretext.tiles import Edges, block_edges, volume_edges
from medssl.store.crops import Crop
from medssl.views.masks import block_mask
from medssl.views.region import Region


class MaskedVolume(PretextTask):
    """Hide blocks of a patch, show the rest to the encoder, and reconstruct the hidden voxels with its decoder."""

    name = "masked-volume"
    family = "latent"

    class Config(TaskConfig):
        """Settings of masked-volume."""

        block: Annotated[int, Field(ge=2, le=64)] | Literal["auto"] = Field(
            default="auto",
            description="Edge of a hidden block in voxels. auto: per axis an eighth of the patch, as a power of two "
            "from 4 to 16: smaller holes are filled by interpolation, larger ones leave nothing to infer them from.",
        )
        ratio: float = Field(default=0.6, gt=0.0, lt=1.0, description="Share of the blocks that is hidden.")
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
        geometry: PatchGeometry = Field(
            default=PatchGeometry(), description="Random rotation, magnification and mirroring."
        )

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.decoder = encoder.make_decoder(1)

    def crops(self, patch: Edges) -> Mapping[str, Crop]:
        """One patch with mild random geometry."""
        return {"patch": self.config.geometry.crop(patch)}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`target`, the patch; `hidden` from the encoder; `scored`, what of it lies inside the scan and is no air."""
        target = region.crop("patch")
        block = block_edges(self.config.block, target)
        hidden = block_mask(region.draws, "hidden", shape=volume_edges(target), block=block, ratio=self.config.ratio)
        scored = hidden & region.valid("patch")
        if self.config.ignore_air > 0:
            scored &= informative(target, block, floor=self.config.ignore_air)
        return {"target": target, "hidden": hidden, "scored": scored}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Squared error on the scored voxels: per sample its energy, on average the loss."""
        volume, hidden, scored = views["target"], views["hidden"], views["scored"]
        block = block_edges(self.config.block, volume)
        target, mean, deviation = self._normalised(volume, block)
        seen = volume.masked_fill(hidden, 0.0)  # 0 is the mean of a normalised scan
        pyramid = self.encoder(seen)
        guess = self.decoder(pyramid, seen)
        error = voxel_error(guess, target)
        energy = scored_mean(error, scored)
        per_block = block[0] * block[1] * block[2]
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=against_another(guess, target, scored),
            # a block normalised with its unbiased variance has a mean square of (n - 1) / n
            trivial=1.0 - 1.0 / per_block if self.config.normalise else None,
            terms={"trivial": scored_mean(target.square(), scored).mean(), "scored": scored.float().mean()},
            pictures={
                "scan": volume,
                "hidden": torch.where(hidden, volume.amin(dim=(1, 2, 3, 4), keepdim=True), volume),
                "guess": torch.where(hidden, guess.detach().to(volume.dtype) * deviation + mean, volume),
                "error": error.detach().sqrt() * scored,
            },
            embeddings=pooled(pyramid).detach(),
        )

    def exported_decoder(self) -> Decoder:
        """The decoder that reconstructed: fine-tuning starts from it."""
        return self.decoder

    def _normalised(self, volume: Tensor, block: Edges) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """What is to be reconstructed, and the mean and deviation that turn it back into the volume."""
        if not self.config.normalise:
            return volume, 0.0, 1.0
        mean, variance = block_moments(volume, block)
        deviation = (variance + 1e-6).sqrt()  # 1e-6: He et al. 2022, reference code
        return (volume - mean) / deviation, mean, deviation


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [MaskedVolume]
