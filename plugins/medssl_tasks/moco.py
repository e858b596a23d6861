"""MoCo: find the other crop of a pair among many, by the vectors of a momentum teacher.

He et al. 2020 (arXiv 1911.05722) with the recipe of v2 (arXiv 2003.04297): the negatives are a queue of the last
batches. With `queue: 0` they are the batch itself, as in v3 (Chen et al. 2021, arXiv 2104.02057).
"""

import math
from collections.abc import Iterable, Mapping

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.errors import ConfigError
from medssl.hookspecs import hookimpl
from medssl.pretext.collectives import gather, rank
from medssl.pretext.momentum import AutoMomentum, Teacher, first_momentum, momentum_at
from medssl.pretext.pairs import PAIR, PairConfig, encode, named_chunks, pair_step
from medssl.pretext.projection import Projection, pooled_channels, unit, without_autocast
from medssl.pretext.queue import Queue, scan_numbers
from medssl.pretext.task import PretextTask, Step
from medssl.shapes import Shape3D
from medssl.views.region import Region

# Logit of a pair that is excluded; finite, so that a query without any negative has a gradient of 0 instead of NaN.
NEVER = -1e9


class MoCo(PretextTask):
    """Find the other crop of a pair among a queue of earlier crops, or among the batch."""

    name = "moco"
    family = "contrastive"

    class Config(PairConfig):
        """Settings of moco."""

        queue: int = Field(
            default=512,
            ge=0,
            le=65536,
            description="Earlier vectors that serve as negatives; 0 uses the batch alone. Those of the same scan are "
            "excluded, so with few scans a long queue holds less information, but it is not wrong.",
        )
        temperature: float = Field(
            default=0.2,
            gt=0.0,
            le=2.0,
            description="Divides similarities. Small values stress the most similar negatives.",
        )
        momentum: AutoMomentum = "auto"

    config: Config

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        inputs = pooled_channels(encoder, config.pooled_levels)
        self.project = Projection(inputs, config.features, hidden=config.hidden, norm=config.norm)
        self.teacher, self.teacher_project = Teacher(encoder), Teacher(self.project)
        self.queue = Queue(config.queue, config.features) if config.queue else None
        # v3: without a queue, a predictor on the student's side
        self.predict = None if config.queue else Projection(config.features, config.features, hidden=config.hidden)
        self.keys: list[tuple[Tensor, Tensor]] = []

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, float]:
        """The teacher's momentum at the first step."""
        return first_momentum(steps, base=self.config.momentum)

    def views(self, region: Region) -> dict[str, Tensor]:
        """`a` and `b`, (B, C, D, H, W) each, and `scan`, (B,) a number per scan."""
        return self.config.views(region) | {"scan": scan_numbers(region.scan_ids, region.random.device)}

    def embed(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """`query_a`, `query_b` of the student and `key_a`, `key_b` of the teacher, (B, F) each; and `scan`."""
        queries = self.project(encode(self.encoder, views, PAIR, levels=self.config.pooled_levels))
        keys = self.teacher_project(encode(self.teacher, views, PAIR, levels=self.config.pooled_levels))
        if self.predict is not None:
            queries = self.predict(queries)
        return named_chunks(queries, PAIR, "query_") | named_chunks(keys, PAIR, "key_") | {"scan": views["scan"]}

    def compare(self, embeddings: dict[str, Tensor]) -> Step:
        """Mean cross-entropy of finding b's key with a's query and the other way round."""
        queries = {name: unit(embeddings[f"query_{name}"]) for name in PAIR}
        keys = {name: unit(embeddings[f"key_{name}"]).detach() for name in PAIR}
        everyone = {name: gather(keys[name], across_ranks=self.training) for name in PAIR}
        count = len(everyone["a"])
        directions, temperature = (("a", "b"), ("b", "a")), self.config.temperature
        if self.queue is not None:
            negative = embeddings["scan"][:, None] != self.queue.owners  # (B, K)
            memory = self.queue.vectors
            losses = [
                queue_contrast(queries[i], keys[j], memory, negative=negative, temperature=temperature)
                for i, j in directions
            ]
            trivial = math.log(1 + self.config.queue)
        else:
            self._check(count)
            first = rank(across_ranks=self.training) * len(keys["a"])
            losses = [
                batch_contrast(queries[i], everyone[j], first=first, temperature=temperature) for i, j in directions
            ]
            trivial = math.log(count)
        if self.training:
            owners = gather(embeddings["scan"], across_ranks=True)
            self.keys.append((torch.cat([everyone["a"], everyone["b"]]), owners.repeat(2)))
        return pair_step(torch.stack(losses).mean(), queries["a"], keys["b"], trivial_loss=trivial, terms={})

    def after_step(self, step: int, total: int) -> None:
        """Update the teacher, and append the step's keys to the queue: the loss has used the queue without them."""
        momentum = momentum_at(step, total, base=self.config.momentum)
        self.teacher.update(self.encoder, momentum)
        self.teacher_project.update(self.project, momentum)
        if self.queue is not None:
            for keys, owners in self.keys:
                self.queue.push(keys, owners)
        self.keys.clear()

    def _check(self, volumes: int) -> None:
        if volumes == 1 and self.training:
            raise ConfigError(
                "moco without a queue contrasts the volumes of a batch, and loop.batch_size is 1. Use 2 or more, "
                "or a queue (task.queue=512)."
            )


def queue_contrast(queries: Tensor, keys: Tensor, queue: Tensor, *, negative: Tensor, temperature: float) -> Tensor:
    """Mean over queries of ln(1 + K * mean over its negatives of e^(negative - positive)).

    If every vector of the queue is a negative, this is the cross-entropy of finding the key among 1 + K. A collapsed
    encoder has ln(1 + K) in either case.

    Args:
        queries: (B, F) unit vectors.
        keys: (B, F) unit vectors, the positives.
        queue: (K, F) unit vectors.
        negative: (B, K) which vectors of the queue are negatives of a query.
        temperature: divides similarities.
    """
    with without_autocast(queries):
        positive = (queries * keys).sum(dim=1) / temperature
        logits = (queries @ queue.to(queries.dtype).T / temperature).masked_fill(~negative, NEVER)
        scale = len(queue) / negative.sum(dim=1).clamp(min=1).to(logits.dtype)
        return F.softplus(logits.logsumexp(dim=1) + scale.log() - positive).mean()


def batch_contrast(queries: Tensor, keys: Tensor, *, first: int, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each query's key among those of all ranks; the first is number `first`."""
    with without_autocast(queries):
        labels = torch.arange(first, first + len(queries), device=queries.device)
        return F.cross_entropy(queries @ keys.T / temperature, labels)


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [MoCo]
