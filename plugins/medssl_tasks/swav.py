"""SwAV: predict the cluster of a crop from overlapping crops, with clusters of equal size.

Caron et al. 2020 (arXiv 2006.09882).
"""

import math
from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.clustering import Prototypes, balanced_codes
from medssl.pretext.collectives import gather
from medssl.pretext.distillation import cross_entropy, prototype_usage
from medssl.pretext.pairs import PAIR, MultiCropConfig, encode, named_chunks
from medssl.pretext.projection import Projection, pooled_channels, unit
from medssl.pretext.queue import Queue
from medssl.pretext.task import PretextTask, Step


class SwAV(PretextTask):
    """Swap assignments: predict the balanced code of one crop from the others."""

    name = "swav"
    family = "clustering"

    class Config(MultiCropConfig):
        """Settings of swav."""

        prototypes: int = Field(
            default=128,
            ge=2,
            le=65536,
            description="Clusters: a tenth to a half of the number of scans. With more, most clusters hold a single "
            "scan.",
        )
        queue: int = Field(
            default=128,
            ge=0,
            le=65536,
            description="Earlier vectors that join a small batch when clusters are balanced: about as many as "
            "prototypes, and those of 16 steps, as in the paper. Older ones come from an outdated encoder, and codes "
            "balanced against them contradict the features. 0 uses the batch alone.",
        )
        temperature: float = Field(
            default=0.1, gt=0.0, le=2.0, description="Divides the scores of the predicting crops."
        )
        epsilon: float = Field(
            default=0.03,
            gt=0.0,
            le=1.0,
            description="Softness of the codes; smaller is harder and less even. The paper takes 0.05 for batches of "
            "thousands: with a few vectors, codes that soft are nearly uniform.",
        )
        iterations: int = Field(default=3, ge=1, le=100, description="Iterations of Sinkhorn's algorithm.")
        frozen_fraction: float = Field(
            default=0.02,
            ge=0.0,
            le=1.0,
            description="Fraction of the run in which the prototypes keep their initial values.",
        )

    config: Config
    frozen: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        inputs = pooled_channels(encoder, config.pooled_levels)
        self.project = Projection(inputs, config.features, hidden=config.hidden, norm=config.norm, kinds=2)
        self.prototypes = Prototypes(config.features, config.prototypes)
        self.queue = Queue(config.queue, config.features) if config.queue else None
        self.register_buffer("frozen", torch.tensor(float(config.frozen_fraction > 0)))
        self.newest: list[Tensor] = []

    def embed(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per crop its unit vector and, as `scores ...`, its cosines with the prototypes."""
        out: dict[str, Tensor] = {}
        for kind, names in enumerate((PAIR, self.config.small_names)):
            if names:
                features = encode(self.encoder, views, names, levels=self.config.pooled_levels)
                vectors = unit(self.project(features, kind))
                out |= named_chunks(vectors, names)
                out |= named_chunks(self.prototypes(vectors, self.frozen), names, "scores ")
        return out

    def compare(self, embeddings: dict[str, Tensor]) -> Step:
        """Mean cross-entropy over the codes of a and b and over all other crops; per sample it is the energy."""
        scores = {name: embeddings[f"scores {name}"] for name in PAIR + self.config.small_names}
        targets = {name: self._codes(scores[name]) for name in PAIR}
        energies, unrelated = [], []
        for code, target in targets.items():
            predicting = [scores[name] for name in scores if name != code]
            energies += [cross_entropy(target, each, temperature=self.config.temperature) for each in predicting]
            unrelated.append(cross_entropy(target.roll(1, dims=0), predicting[0], temperature=self.config.temperature))
        energy = torch.stack(energies).mean(dim=0)  # (B,)
        if self.training and self.queue is not None:
            self.newest += [gather(embeddings[name].detach(), across_ranks=True) for name in PAIR]
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=torch.stack(unrelated).mean(dim=0).detach() if len(energy) > 1 else None,
            trivial_loss=math.log(self.config.prototypes),  # the same scores for all prototypes
            terms={"prototypes_used": prototype_usage(torch.cat(list(targets.values())), across_ranks=self.training)},
            embeddings=torch.cat([embeddings[name] for name in PAIR]).detach(),
        )

    def after_step(self, step: int, total: int) -> None:
        """Append the step's vectors to the queue, after they were assigned without being in it."""
        self.frozen.fill_(float(step + 1 < self.config.frozen_fraction * total))
        if self.queue is not None:
            for vectors in self.newest:
                self.queue.push(vectors)
        self.newest.clear()

    @torch.no_grad()
    def _codes(self, scores: Tensor) -> Tensor:
        memory, mass = None, None
        if self.queue is not None:
            memory, mass = self.prototypes(self.queue.vectors), self.queue.is_filled()
        return balanced_codes(
            scores,
            epsilon=self.config.epsilon,
            iterations=self.config.iterations,
            memory=memory,
            memory_mass=mass,
            across_ranks=self.training,
        )


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [SwAV]
