"""Variational autoencoder: compress a patch into a small random code.

After Kingma & Welling 2014 (arXiv 1312.6114) and Higgins et al. 2017 (beta-VAE). The code is a map at the encoder's
deepest level, and the decoder has no other input.
"""

from collections.abc import Iterable

from pydantic import Field
from torch import Tensor, nn

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.heads import LatentDecoder
from medssl.pretext.patches import PatchConfig
from medssl.pretext.reconstruction import mismatched_error, valid_fraction, voxel_error
from medssl.pretext.task import PretextTask, Step
from medssl.views.region import Region

LOG_VARIANCE_LIMIT = 10.0
ACTIVE_VARIANCE = 0.01


class VAE(PretextTask):
    """Encode a patch as a Gaussian per cell of the deepest level, sample from it, and reconstruct the patch."""

    name = "vae"
    family = "generative"

    class Config(PatchConfig):
        """Settings of vae."""

        latents: int = Field(default=32, ge=1, le=1024, description="Latent dimensions per cell of the deepest level.")
        beta: float = Field(
            default=1.0,
            ge=0.0,
            le=1000.0,
            description="Weight of the KL divergence against the reconstruction error, both summed and not averaged.",
        )
        noise: float = Field(
            default=0.5,
            gt=0.0,
            le=10.0,
            description="Standard deviation of the decoder's Gaussian likelihood, in units of the normalised scan. "
            "Smaller values spend more of the code on detail.",
        )

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.posterior = nn.Conv3d(encoder.channels[-1], 2 * config.latents, 1)
        self.decoder = LatentDecoder(encoder, config.latents, encoder.description.in_channels)

    def views(self, region: Region) -> dict[str, Tensor]:
        """`target`, the patch; `scored`, the voxels inside the scan; `noise`, standard normal, per latent."""
        target = region.crop("patch")
        cells = [edge // stride for edge, stride in zip(target.shape[2:], self.encoder.strides[-1], strict=True)]
        noise = region.random.noise("latent", (self.config.latents, *cells))
        return {"target": target, "scored": region.valid("patch"), "noise": noise}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Negative evidence lower bound per scored number: squared error over 2 noise^2, plus beta times KL."""
        target, scored, noise = views["target"], views["scored"], views["noise"]
        precision = 0.5 / self.config.noise**2
        moments = self.posterior(self.encoder(target)[-1]).to(target.dtype)
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        prediction = self.decoder(mean + noise * (0.5 * log_variance).exp())
        error = voxel_error(prediction, target)
        numbers = scored.expand_as(error).flatten(1).sum(dim=1).clamp_min(1)
        divergence = kl_to_standard_normal(mean, log_variance)
        reconstruction = (error * scored).flatten(1).sum(dim=1) * precision
        energy = (reconstruction + self.config.beta * divergence) / numbers
        mismatched = mismatched_error(prediction, target, scored)
        kl_per_number = (self.config.beta * divergence / numbers).detach()
        codes = mean.detach().movedim(1, -1).flatten(0, -2)  # (B * cells, latents)
        zero = (target.square() * scored).flatten(1).sum(dim=1) * precision / numbers
        terms = {
            "trivial_loss": zero.mean(),
            "reconstruction": reconstruction.detach().mean(),
            "kl": divergence.detach().mean(),
            "active_units": (codes.var(dim=0, unbiased=False) > ACTIVE_VARIANCE).to(target.dtype).mean(),
        }
        pictures = {
            "scan": target,
            "prediction": prediction.detach().to(target.dtype),
            "error": error.detach().sqrt() * scored,
        }
        if not self.training:
            pictures["dream"] = self.decoder(noise).detach().to(target.dtype)  # a patch from the prior alone
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=None if mismatched is None else mismatched * precision + kl_per_number,
            terms=terms,
            pictures=pictures,
            embeddings=codes,
            valid_fraction=valid_fraction(scored),
        )


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(B,) Kullback-Leibler divergence of diagonal Gaussians (B, L, ...) from the standard normal, summed over latents.

    -1/2 sum(1 + log s^2 - m^2 - s^2), Kingma & Welling 2014, appendix B.
    """
    terms = 1.0 + log_variance - mean.square() - log_variance.exp()
    return -0.5 * terms.flatten(1).sum(dim=1)


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [VAE]
