"""DeeperCluster: cluster the vectors of earlier crops, and predict a crop's cluster from an overlapping crop.

Caron et al. 2018 (DeepCluster, arXiv 1807.05520) and 2019 (hierarchy, arXiv 1905.01278), with the spherical k-means
over a memory and the fixed centroids of DeepCluster-v2 (in arXiv 2006.09882).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.errors import ConfigError
from medssl.hookspecs import hookimpl
from medssl.pretext.collectives import gather
from medssl.pretext.distillation import entropy
from medssl.pretext.kmeans import kmeans_plus_plus, spherical_kmeans
from medssl.pretext.pairs import PAIR, PairConfig, encode, named_chunks
from medssl.pretext.projection import Projection, pooled_channels, unit, without_autocast
from medssl.pretext.queue import Queue
from medssl.pretext.task import PretextTask, Step
from medssl.shapes import Shape3D

MIN_EACH = 2  # vectors per cluster


class DeeperCluster(PretextTask):
    """Predict the cluster of the other crop; clusters are recomputed as the encoder changes."""

    name = "deepercluster"
    family = "clustering"

    class Config(PairConfig):
        """Settings of deepercluster."""

        clusters: int = Field(
            default=64,
            ge=2,
            le=65536,
            description="Clusters in all: a tenth to a half of the number of scans. With more, most hold one scan.",
        )
        groups: int = Field(
            default=1,
            ge=1,
            le=1024,
            description="Groups of clusters, which are predicted first; their number must divide `clusters`. 1 is no "
            "hierarchy, which pays from thousands of clusters on.",
        )
        memory: Annotated[int, Field(ge=16, le=1048576)] | Literal["auto"] = Field(
            default="auto",
            description="Number of latest vectors that are clustered, at least two per cluster; the first clustering "
            "waits for them. auto: 16 per cluster, so that a centroid is a mean of several, and at least 256.",
        )
        recluster_every: Annotated[int, Field(ge=1, le=100000)] | Literal["auto"] = Field(
            default="auto",
            description="Steps between two clusterings. auto: a fiftieth of the run, at least 10: labels change "
            "often enough to follow the encoder and rarely enough to be learned.",
        )
        iterations: int = Field(default=10, ge=1, le=100, description="Rounds of k-means per clustering.")
        temperature: float = Field(default=0.1, gt=0.0, le=2.0, description="Divides the cosines with the centroids.")

    config: Config
    centroids: Tensor
    group_centroids: Tensor
    weights: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        if config.clusters % config.groups or config.clusters == config.groups:
            raise ConfigError(
                f"task.clusters is {config.clusters} and cannot be divided into {config.groups} groups of two or more. "
                f"Use {2 * config.groups * max(1, config.clusters // (2 * config.groups))} clusters, or one group."
            )
        length = max(256, 16 * config.clusters) if config.memory == "auto" else int(config.memory)
        if length < MIN_EACH * config.clusters:
            raise ConfigError(
                f"task.memory is {config.memory}, too few vectors to find {config.clusters} clusters in. Use auto, or "
                f"{MIN_EACH * config.clusters} at least."
            )
        super().__init__(encoder, config)
        inputs = pooled_channels(encoder, config.pooled_levels)
        self.project = Projection(inputs, config.features, hidden=config.hidden, norm=config.norm)
        self.memory = Queue(length, config.features)
        draw = torch.Generator().manual_seed(1)
        self.register_buffer("centroids", unit(torch.randn(config.clusters, config.features, generator=draw)))
        self.register_buffer("group_centroids", unit(torch.randn(config.groups, config.features, generator=draw)))
        self.register_buffer("weights", torch.ones(config.clusters))
        self.newest: list[Tensor] = []
        self.has_clusters = False
        self.register_load_state_dict_post_hook(_recall)  # type: ignore[no-untyped-call]

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, int]:
        """Steps between two clusterings, and vectors that are clustered."""
        return {"recluster_every": self._every(steps), "memory": len(self.memory.vectors)}

    def embed(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """`a` and `b`, (B, F) unit vectors each."""
        vectors = self.project(encode(self.encoder, views, PAIR, levels=self.config.pooled_levels))
        return named_chunks(unit(vectors), PAIR)

    def compare(self, embeddings: dict[str, Tensor]) -> Step:
        """Mean of both directions of the cross-entropy of the other crop's cluster, rare clusters weighing more.

        Equal weights would let the encoder put everything into the largest cluster.
        """
        a, b = (embeddings[name] for name in PAIR)
        labels = {name: self._label(embeddings[name]) for name in PAIR}
        energies = torch.stack([self._cross_entropy(a, labels["b"]), self._cross_entropy(b, labels["a"])])  # (2, B)
        weights = torch.stack([self.weights[labels["b"]], self.weights[labels["a"]]])
        unrelated = self._cross_entropy(a, labels["b"].roll(1)) if len(a) > 1 else None
        if self.training:
            self.newest += [gather(vectors.detach(), across_ranks=True) for vectors in (a, b)]
        sizes = 1.0 / (self.weights * self.config.clusters)
        used = entropy(sizes / sizes.sum()) / math.log(self.config.clusters)
        return Step(
            loss=(weights * energies).mean(),
            energy=energies.mean(dim=0).detach(),
            negative_energy=None if unrelated is None else unrelated.detach(),
            trivial_loss=math.log(self.config.clusters),  # all clusters alike
            terms={"clusters_used": used} if self.has_clusters else {},
            embeddings=torch.cat([a, b]).detach(),
        )

    def after_step(self, step: int, total: int) -> None:
        """Append the step's vectors to the memory, and at intervals cluster it, identically on every rank."""
        for vectors in self.newest:
            self.memory.push(vectors)
        self.newest.clear()
        if (step + 1) % self._every(total) == 0:
            vectors = self.memory.filled()
            if len(vectors) >= MIN_EACH * self.config.clusters:
                self.cluster(vectors)

    def _every(self, total: int) -> int:
        return max(10, total // 50) if self.config.recluster_every == "auto" else int(self.config.recluster_every)

    @torch.no_grad()
    def cluster(self, vectors: Tensor) -> None:
        """New centroids of `vectors` (N, F), N at least the number of clusters, and how rare each cluster is."""
        groups, each = self.config.groups, self.config.clusters // self.config.groups
        self.group_centroids.copy_(self._kmeans(vectors, groups))
        member = (vectors @ self.group_centroids.T).argmax(dim=1)
        for group in range(groups):
            inside = vectors[member == group]
            if len(inside):
                self.centroids[group * each : (group + 1) * each] = self._kmeans(inside, each)
        counts = torch.bincount(self._label(vectors), minlength=self.config.clusters).to(self.weights)
        self.weights.copy_(len(vectors) / (self.config.clusters * counts.clamp(min=1)))
        self.has_clusters = True

    def _kmeans(self, vectors: Tensor, count: int) -> Tensor:
        start = kmeans_plus_plus(vectors, count)
        centroids, _ = spherical_kmeans(vectors, start, iterations=self.config.iterations)
        return centroids

    @torch.no_grad()
    def _label(self, vectors: Tensor) -> Tensor:
        """(B,) cluster of each vector: first the nearest group, then the nearest cluster in it."""
        with without_autocast(vectors):
            group = (vectors.detach() @ self.group_centroids.to(vectors.dtype).T).argmax(dim=1)
            cosine = vectors.detach() @ self.centroids.to(vectors.dtype).T
        return cosine.masked_fill(~self._in_group(group), -math.inf).argmax(dim=1)

    def _cross_entropy(self, vectors: Tensor, label: Tensor) -> Tensor:
        """(B,) cross-entropy of the group plus, among the clusters of the right group, that of the cluster."""
        group, temperature = label // (self.config.clusters // self.config.groups), self.config.temperature
        with without_autocast(vectors):
            coarse = vectors @ self.group_centroids.to(vectors.dtype).T / temperature
            fine = vectors @ self.centroids.to(vectors.dtype).T / temperature
        fine = fine.masked_fill(~self._in_group(group), -math.inf)
        return F.cross_entropy(coarse, group, reduction="none") + F.cross_entropy(fine, label, reduction="none")

    def _in_group(self, group: Tensor) -> Tensor:
        """(B, clusters) whether a cluster belongs to the group of each sample."""
        each = self.config.clusters // self.config.groups
        return torch.arange(self.config.clusters, device=group.device) // each == group[:, None]


def _recall(task: DeeperCluster, _: Any) -> None:
    """Find out whether a loaded state was saved after a clustering: before the first, all clusters weigh the same."""
    task.has_clusters = bool((task.weights != 1.0).any())


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [DeeperCluster]
