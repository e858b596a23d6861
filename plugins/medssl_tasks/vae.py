"""Variational autoencoder: say all of a patch in a small random code.

After Kingma & Welling 2014 (arXiv 1312.6114) and Higgins et al. 2017 (beta-VAE). The code is a map at the encoder's
deepest level, and the decoder sees nothing else.
"""

from collections.abc import Iterable

from pydantic import Field
from torch import Tensor, nn

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.heads import LatentDecoder
from medssl.pretext.patches import PatchConfig
from medssl.pretext.reconstruction import against_another, valid_fraction, voxel_error
from medssl.pretext.task import PretextTask, Step
from medssl.views.region import Region

LOG_VARIANCE_LIMIT = 10.0
ACTIVE_VARIANCE = 0.01


class VAE(PretextTask):
    """Encode a patch as a Gaussian per place of the deepest level, draw from it, and reconstruct the patch."""

    name = "vae"
    family = "generative"

    class Config(PatchConfig):
        """Settings of vae."""

        latents: int = Field(
            default=32, ge=1, le=1024, description="Numbers of the code at each place of the deepest level."
        )
        beta: float = Field(
            default=1.0,
            ge=0.0,
            le=1000.0,
            description="Weight of the code's cost against that of the reconstruction, both summed and never averaged.",
        )
        noise: float = Field(
            default=0.5,
            gt=0.0,
            le=10.0,
            description="Standard deviation to which a voxel is to be explained, in units of the normalised scan. "
            "Smaller spends more code on detail.",
        )

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.posterior = nn.Conv3d(encoder.channels[-1], 2 * config.latents, 1)
        self.decoder = LatentDecoder(encoder, config.latents, encoder.description.in_channels)

    def views(self, region: Region) -> dict[str, Tensor]:
        """`target`, the patch; `scored`, the voxels inside the scan; `noise`, a standard normal number per number of
        the code.
        """
        target = region.crop("patch")
        places = [edge // stride for edge, stride in zip(target.shape[2:], self.encoder.strides[-1], strict=True)]
        noise = region.random.noise("latent", (self.config.latents, *places))
        return {"target": target, "scored": region.valid("patch"), "noise": noise}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """The negative evidence bound per number of the patch (voxels times channels): reconstruction summed over them
        plus beta times KL summed over the code.
        """
        target, scored, noise = views["target"], views["scored"], views["noise"]
        precision = 0.5 / self.config.noise**2
        moments = self.posterior(self.encoder(target)[-1]).to(target.dtype)
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        guess = self.decoder(mean + noise * (0.5 * log_variance).exp())
        error = voxel_error(guess, target)
        numbers = scored.expand_as(error).flatten(1).sum(dim=1).clamp_min(1)
        divergence = kl_to_standard_normal(mean, log_variance)
        reconstruction = (error * scored).flatten(1).sum(dim=1) * precision
        energy = (reconstruction + self.config.beta * divergence) / numbers
        other = against_another(guess, target, scored)
        kl_per_number = (self.config.beta * divergence / numbers).detach()
        codes = mean.detach().movedim(1, -1).flatten(0, -2)  # (B * places, latents)
        zero = (target.square() * scored).flatten(1).sum(dim=1) * precision / numbers
        terms = {
            "trivial_loss": zero.mean(),
            "reconstruction": reconstruction.detach().mean(),
            "kl": divergence.detach().mean(),
            "active_units": (codes.var(dim=0, unbiased=False) > ACTIVE_VARIANCE).to(target.dtype).mean(),
        }
        pictures = {
            "scan": target,
            "guess": guess.detach().to(target.dtype),
            "error": error.detach().sqrt() * scored,
        }
        if not self.training:
            pictures["dream"] = self.decoder(noise).detach().to(target.dtype)  # a patch from the prior alone
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=None if other is None else other * precision + kl_per_number,
            terms=terms,
            pictures=pictures,
            embeddings=codes,
            valid_fraction=valid_fraction(scored),
        )


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(B,) Kullback-Leibler divergence of diagonal Gaussians (B, L, ...) from the standard normal one, summed over all
    numbers of the code: -1/2 sum(1 + log s^2 - m^2 - s^2), Kingma & Welling 2014, appendix B.
    """
    terms = 1.0 + log_variance - mean.square() - log_variance.exp()
    return -0.5 * terms.flatten(1).sum(dim=1)


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [VAE]
