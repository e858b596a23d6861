"""SimSiam: predict the same network's vector of the other crop, with a stopped gradient.

Chen and He 2021 (arXiv 2011.10566). BYOL without a teacher: the stopped gradient alone prevents collapse.
"""

from collections.abc import Iterable

from pydantic import Field
from torch import Tensor, nn

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.pairs import PAIR, PairConfig, encode, named_chunks, pair_step
from medssl.pretext.projection import Projection, pooled_channels, unit
from medssl.pretext.task import PretextTask, Step


class SimSiam(PretextTask):
    """Predict the vector of the other crop, which takes no gradient."""

    name = "simsiam"
    family = "self-distillation"

    class Config(PairConfig):
        """Settings of simsiam."""

        features: int = Field(default=512, ge=8, le=8192, description="Length of the compared vectors.")
        bottleneck: int = Field(
            default=128,
            ge=8,
            le=8192,
            description="Width of the predictor's hidden layer; a quarter of `features` in the paper.",
        )

    config: Config

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        inputs, norm = pooled_channels(encoder, config.pooled_levels), config.norm
        self.project = Projection(inputs, config.features, hidden=config.hidden, layers=3, norm=norm, last_norm=True)
        self.predict = Projection(config.features, config.features, hidden=config.bottleneck, norm=norm)

    def unscheduled_modules(self) -> Iterable[nn.Module]:
        """The predictor, which has to adapt to the latest representations until the end (section 4.1 of the paper)."""
        return [self.predict]

    def embed(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """`prediction_a`, `prediction_b` and their targets `target_b`, `target_a`, (B, F) each."""
        vectors = self.project(encode(self.encoder, views, PAIR, levels=self.config.pooled_levels))
        predictions = self.predict(vectors)
        return named_chunks(predictions, PAIR, "prediction_") | named_chunks(vectors.detach(), PAIR, "target_")

    def compare(self, embeddings: dict[str, Tensor]) -> Step:
        """Minus the cosine, mean of the two directions: 0, the trivial value, for unrelated vectors, and -1 at best.

        A collapsed encoder has a loss of -1, so the spread of the features says more than the loss.
        """
        prediction = {name: unit(embeddings[f"prediction_{name}"]) for name in PAIR}
        target = {name: unit(embeddings[f"target_{name}"]).detach() for name in PAIR}
        loss = 0.5 * (alignment(prediction["a"], target["b"]) + alignment(prediction["b"], target["a"]))
        return pair_step(loss, prediction["a"], target["b"], trivial_loss=0.0, terms={})


def alignment(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus the mean cosine of unit vectors (B, F); `target` takes no gradient."""
    return -(prediction * target.detach()).sum(dim=1).mean()


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [SimSiam]
