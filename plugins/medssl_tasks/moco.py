"""MoCo: a crop is to be found again among many others, which a slowly moving teacher has described.

He et al. 2020 (arXiv 1911.05722) with the recipe of v2 (arXiv 2003.04297): the others are a queue of the last batches.
With `queue: 0` they are the batch itself, as in v3 (Chen et al. 2021, arXiv 2104.02057).
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
from medssl.pretext.gather import gather, rank
from medssl.pretext.momentum import AutoMomentum, Teacher, first_momentum, momentum_at
from medssl.pretext.pairs import PAIR, PairConfig, encode, named_chunks, pair_step
from medssl.pretext.projection import Projection, pooled_channels, unit, without_autocast
from medssl.pretext.queue import Queue, scan_numbers
from medssl.pretext.task import PretextTask, Step
from medssl.views.region import Region

# A logit that takes no part; finite, so that a query without a single negative has a gradient of 0 rather than NaN.
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
            description="Earlier vectors that a crop is told apart from; 0 uses the batch alone. Those of its own scan "
            "are left out, so with few scans a long queue is less rich, not wrong.",
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

    def automatic(self, patch: tuple[int, int, int], steps: int) -> Mapping[str, float]:
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
        everyone = {name: gather(keys[name], together=self.training) for name in PAIR}
        count = len(everyone["a"])
        directions = (("a", "b"), ("b", "a"))
        if self.queue is not None:
            other = embeddings["scan"][:, None] != self.queue.owners  # (B, K)
            losses = [
                queue_contrast(
                    queries[i], keys[j], self.queue.vectors, other=other, temperature=self.config.temperature
                )
                for i, j in directions
            ]
            trivial = math.log(1 + self.config.queue)
        else:
            self._check(count)
            first = rank(together=self.training) * len(keys["a"])
            losses = [
                batch_contrast(queries[i], everyone[j], first=first, temperature=self.config.temperature)
                for i, j in directions
            ]
            trivial = math.log(count)
        if self.training:
            owners = gather(embeddings["scan"], together=True)
            self.keys.append((torch.cat([everyone["a"], everyone["b"]]), owners.repeat(2)))
        return pair_step(torch.stack(losses).mean(), queries["a"], keys["b"], trivial_loss=trivial, terms={})

    def after_step(self, step: int, total: int) -> None:
        """The teacher follows, and the step's keys enter the queue: after the loss has seen the queue without them."""
        momentum = momentum_at(step, total, base=self.config.momentum)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_project.follow(self.project, momentum)
        if self.queue is not None:
            for keys, owners in self.keys:
                self.queue.push(keys, owners)
        self.keys.clear()

    def _check(self, volumes: int) -> None:
        if volumes == 1 and self.training:
            raise ConfigError(
                "moco without a queue tells the volumes of a batch apart, and loop.batch_size is 1. Use 2 or more, "
                "or a queue (task.queue=512)."
            )


def queue_contrast(queries: Tensor, keys: Tensor, queue: Tensor, *, other: Tensor, temperature: float) -> Tensor:
    """Mean over queries of ln(1 + K * mean over its negatives of e^(negative - own)); all vectors have length 1.

    queue: (K, F). other: (B, K) which of them are negatives of a query. Where all are, this is the cross-entropy of
    finding the own key among 1 + K; ln(1 + K) is the value of a collapsed encoder either way.
    """
    with without_autocast(queries):
        own = (queries * keys).sum(dim=1) / temperature
        logits = (queries @ queue.to(queries.dtype).T / temperature).masked_fill(~other, NEVER)
        share = len(queue) / other.sum(dim=1).clamp(min=1).to(logits.dtype)
        return F.softplus(logits.logsumexp(dim=1) + share.log() - own).mean()


def batch_contrast(queries: Tensor, keys: Tensor, *, first: int, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each query's own key among the keys of all ranks; the first is number `first`."""
    with without_autocast(queries):
        own = torch.arange(first, first + len(queries), device=queries.device)
        return F.cross_entropy(queries @ keys.T / temperature, own)


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [MoCo]
