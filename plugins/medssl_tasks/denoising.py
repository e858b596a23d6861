"""Denoising: remove noise that was added to a scan.

After Vincent et al. 2010 (denoising autoencoders) and Kascenas et al. 2022 (coarse noise, MIDL): grains of noise larger
than a voxel cannot be averaged away locally, so the network has to know the anatomy.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.heads import pooled
from medssl.pretext.patches import PatchConfig
from medssl.pretext.reconstruction import mismatched_error, scored_mean, valid_fraction, voxel_error
from medssl.pretext.task import PretextTask, Step
from medssl.randomness import SampleRandom
from medssl.views.region import Region

Sigma = Annotated[float, Field(ge=0.0, le=10.0)]


class Denoising(PretextTask):
    """Add noise to a patch and reconstruct the patch with the encoder's decoder."""

    name = "denoising"
    family = "restoration"

    class Config(PatchConfig):
        """Settings of denoising."""

        sigma: tuple[Sigma, Sigma] = Field(
            default=(0.3, 1.0),
            description="Smallest and largest standard deviation of the noise, random per patch, in units of the "
            "normalised scan, whose own is about 1.",
        )
        grain: int = Field(
            default=4,
            ge=1,
            le=32,
            description="Distance of the independent noise values in voxels; between them noise is interpolated. "
            "1 is white noise, which a local average removes.",
        )

        @model_validator(mode="after")
        def _ordered(self) -> "Denoising.Config":
            if not 0.0 < self.sigma[1] >= self.sigma[0]:
                raise ValueError(f"sigma is {list(self.sigma)}; give the smaller first, and the larger above 0")
            return self

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.decoder = encoder.make_decoder(encoder.description.in_channels)

    def views(self, region: Region) -> dict[str, Tensor]:
        """`target`, the patch; `noisy`, the same with noise; `scored`, the voxels inside the scan."""
        target = region.crop("patch")
        sigma = region.random.uniform("sigma", *self.config.sigma)
        noise = grainy_noise(region.random, "noise", like=target, grain=self.config.grain)
        return {"target": target, "noisy": target + sigma.view(-1, 1, 1, 1, 1) * noise, "scored": region.valid("patch")}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Squared error everywhere inside the scan, since the noise is everywhere."""
        target, noisy, scored = views["target"], views["noisy"], views["scored"]
        pyramid = self.encoder(noisy)
        prediction = self.decoder(pyramid, noisy)
        error = voxel_error(prediction, target)
        energy = scored_mean(error, scored)
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=mismatched_error(prediction, target, scored),
            trivial_loss=expected_square(*self.config.sigma),
            terms={"noise": scored_mean(voxel_error(noisy, target), scored).mean()},
            pictures={
                "scan": target,
                "noisy": noisy,
                "prediction": prediction.detach().to(target.dtype),
                "error": error.detach().sqrt(),
            },
            embeddings=pooled(pyramid).detach(),
            valid_fraction=valid_fraction(scored),
        )


def grainy_noise(random: SampleRandom, name: str, *, like: Tensor, grain: int) -> Tensor:
    """(B, C, D, H, W) noise of mean 0 and variance 1 in every sample, its independent values `grain` voxels apart."""
    channels, *shape = like.shape[1:]
    # one value beyond each edge: with a single one along an axis there would be nothing to interpolate between
    coarse = random.noise(name, (channels, *(-(-edge // grain) + 1 for edge in shape)))
    if grain > 1:
        wide = [edge * grain for edge in coarse.shape[2:]]
        coarse = F.interpolate(coarse, size=wide, mode="trilinear", align_corners=False)
    noise = coarse[:, :, : shape[0], : shape[1], : shape[2]]
    noise = noise - noise.mean(dim=(1, 2, 3, 4), keepdim=True)
    return noise / noise.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()


def expected_square(low: float, high: float) -> float:
    """Mean of the square of a number drawn evenly between `low` and `high`: the loss of returning the noisy patch."""
    return (low * low + low * high + high * high) / 3.0


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [Denoising]
