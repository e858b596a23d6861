"""BYOL: predict a momentum teacher's vector of the other crop of a pair (Grill et al. 2020, arXiv 2006.07733).

It needs no negatives. The asymmetry prevents collapse: the student has a predictor, and the teacher takes no gradient.
"""

from collections.abc import Iterable, Mapping

from pydantic import Field
from torch import Tensor

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.momentum import AutoMomentum, Teacher, first_momentum, momentum_at
from medssl.pretext.pairs import PAIR, PairConfig, encode, named_chunks, pair_step
from medssl.pretext.projection import Projection, pooled_channels, unit
from medssl.pretext.task import PretextTask, Step
from medssl.shapes import Shape3D


class BYOL(PretextTask):
    """Predict the teacher's vector of the other crop."""

    name = "byol"
    family = "self-distillation"

    class Config(PairConfig):
        """Settings of byol."""

        features: int = Field(default=256, ge=8, le=8192, description="Length of the compared vectors.")
        momentum: AutoMomentum = "auto"

    config: Config

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        inputs = pooled_channels(encoder, config.pooled_levels)
        self.project = Projection(inputs, config.features, hidden=config.hidden, norm=config.norm)
        self.predict = Projection(config.features, config.features, hidden=config.hidden, norm=config.norm)
        self.teacher, self.teacher_project = Teacher(encoder), Teacher(self.project)

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, float]:
        """The teacher's momentum at the first step."""
        return first_momentum(steps, base=self.config.momentum)

    def embed(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """`prediction_a`, `prediction_b` of the student and `target_a`, `target_b` of the teacher, (B, F) each."""
        levels = self.config.pooled_levels
        predictions = self.predict(self.project(encode(self.encoder, views, PAIR, levels=levels)))
        targets = self.teacher_project(encode(self.teacher, views, PAIR, levels=levels))
        return named_chunks(predictions, PAIR, "prediction_") | named_chunks(targets, PAIR, "target_")

    def compare(self, embeddings: dict[str, Tensor]) -> Step:
        """2 - 2 cosine, summed over the two directions; 4, the trivial value, for unrelated vectors.

        A collapsed encoder has a loss of 0, so the spread of the features says more than the loss.
        """
        prediction = {name: unit(embeddings[f"prediction_{name}"]) for name in PAIR}
        target = {name: unit(embeddings[f"target_{name}"]).detach() for name in PAIR}
        loss = regression(prediction["a"], target["b"]) + regression(prediction["b"], target["a"])
        return pair_step(loss, prediction["a"], target["b"], trivial_loss=4.0, terms={})

    def after_step(self, step: int, total: int) -> None:
        """Update the teacher and its projection; the predictor has no counterpart in the teacher."""
        momentum = momentum_at(step, total, base=self.config.momentum)
        self.teacher.update(self.encoder, momentum)
        self.teacher_project.update(self.project, momentum)


def regression(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of unit vectors (B, F), which is 2 - 2 cosine; `target` takes no gradient."""
    return (2 - 2 * (prediction * target.detach()).sum(dim=1)).mean()


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [BYOL]
