"""Euclidean k-means: clusters of descriptors whose length means something.

Lloyd 1982, with the start of Arthur and Vassilvitskii 2007 (k-means++). For directions see `kmeans`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
def euclidean_kmeans(vectors: Float[Tensor, "n f"], count: int, *, iterations: int) -> Float[Tensor, "k f"]:
    """(count, F) centroids of N vectors, the same for the same vectors: the start's draws are fixed.

    A cluster that loses all its members moves to the vector farthest from its own centroid, because an empty one
    would stay empty. With fewer different vectors than clusters, some centroids coincide.
    """
    centroids = _spread_start(vectors, count)
    for _ in range(iterations):
        distance, nearest = squared_distances(vectors, centroids).min(dim=1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, vectors)
        members = torch.bincount(nearest, minlength=count)
        spare = vectors[distance.topk(min(count, len(vectors))).indices]
        order = ((members == 0).cumsum(0) - 1).clamp(min=0, max=len(spare) - 1)
        centroids = torch.where((members == 0)[:, None], spare[order], sums / members.clamp(min=1)[:, None])
    return centroids


def nearest_centroid(vectors: Float[Tensor, "n f"], centroids: Float[Tensor, "k f"]) -> Int[Tensor, "n"]:
    """Number of the centroid nearest to each vector."""
    return squared_distances(vectors, centroids).argmin(dim=1)


def squared_distances(vectors: Float[Tensor, "n f"], centroids: Float[Tensor, "k f"]) -> Float[Tensor, "n k"]:
    """|v - c|^2 = |v|^2 - 2 v.c + |c|^2: one matrix product instead of (N, K, F) differences."""
    squares = vectors.square().sum(dim=1, keepdim=True) + centroids.square().sum(dim=1)
    return (squares - 2 * vectors @ centroids.T).clamp_min(0)


def _spread_start(vectors: Tensor, count: int) -> Tensor:
    """Vectors far from each other, each taken with a chance proportional to its squared distance from those taken."""
    draws = torch.rand(count, generator=torch.Generator().manual_seed(0)).to(vectors)
    chosen = [vectors[0]]
    distance = (vectors - chosen[0]).square().sum(dim=1)
    for draw in draws[1:]:
        reached = distance.cumsum(0)
        place = torch.searchsorted(reached, draw * reached[-1]).clamp(max=len(vectors) - 1)
        chosen.append(vectors[place])
        distance = torch.minimum(distance, (vectors - chosen[-1]).square().sum(dim=1))
    return torch.stack(chosen)
