"""k-means: clusters of directions, and of descriptors whose length means something.

Lloyd 1982, with the start of Arthur and Vassilvitskii 2007 (k-means++). On directions it is the spherical one of
Dhillon and Modha 2001, which DeepCluster-v2 (in arXiv 2006.09882) uses on embeddings. Draws nothing at random.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

# (N, F), (K, F) to (N, K): small for vectors that belong together. What is the same for all centroids may be left out.
Distance = Callable[[Tensor, Tensor], Tensor]
# Sums of the members of each cluster, or the vector it moves to, and how many there are: to centroids.
Centre = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def spherical_kmeans(
    vectors: Float[Tensor, "n f"], start: Float[Tensor, "k f"], *, iterations: int
) -> tuple[Float[Tensor, "k f"], Int[Tensor, "n"]]:
    """Unit centroids, and the number of the centroid nearest to each of N unit vectors. start: first centroids."""
    centroids = _rounds(vectors, F.normalize(start, dim=1), _apart, _direction, iterations=iterations)
    return centroids, _apart(vectors, centroids).argmin(dim=1)


@torch.no_grad()
def euclidean_kmeans(vectors: Float[Tensor, "n f"], count: int, *, iterations: int) -> Float[Tensor, "k f"]:
    """(count, F) centroids of N vectors, from `count` of them that lie far from each other.

    With fewer different vectors than clusters, some centroids coincide.
    """
    start = _far_apart(vectors, count, lambda rows, one: (rows - one).square().sum(dim=1))
    return _rounds(vectors, start, squared_distances, _mean, iterations=iterations)


@torch.no_grad()
def spread_start(vectors: Float[Tensor, "n f"], count: int) -> Float[Tensor, "k f"]:
    """First centroids for directions: `count` of N unit vectors that lie far from each other."""
    return _far_apart(vectors, count, lambda rows, one: (1 - rows @ one).clamp(min=0))


def nearest_centroid(vectors: Float[Tensor, "n f"], centroids: Float[Tensor, "k f"]) -> Int[Tensor, "n"]:
    """Number of the centroid nearest to each vector, by Euclidean distance."""
    return squared_distances(vectors, centroids).argmin(dim=1)


def squared_distances(vectors: Float[Tensor, "n f"], centroids: Float[Tensor, "k f"]) -> Float[Tensor, "n k"]:
    """|v - c|^2 = |v|^2 - 2 v.c + |c|^2: one matrix product instead of (N, K, F) differences."""
    squares = vectors.square().sum(dim=1, keepdim=True) + centroids.square().sum(dim=1)
    return (squares - 2 * vectors @ centroids.T).clamp_min(0)


def _rounds(vectors: Tensor, centroids: Tensor, distance: Distance, centre: Centre, *, iterations: int) -> Tensor:
    """Lloyd's rounds. A cluster that loses all its members moves to the vector farthest from its own centroid, because
    an empty one would stay empty; the first empty cluster takes the farthest.
    """
    count = len(centroids)
    for _ in range(iterations):
        own, nearest = distance(vectors, centroids).min(dim=1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, vectors)
        members = torch.bincount(nearest, minlength=count)
        empty = members == 0
        spare = vectors[own.topk(min(count, len(vectors))).indices]
        order = (empty.cumsum(0) - 1).clamp(min=0, max=len(spare) - 1)
        centroids = centre(torch.where(empty[:, None], spare[order], sums), members.clamp(min=1))
    return centroids


def _far_apart(vectors: Tensor, count: int, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """k-means++ with the same draws every time: each vector is taken with a chance proportional to its `distance`, (N,)
    from one vector, to the nearest one taken before.
    """
    random = torch.rand(count, generator=torch.Generator().manual_seed(0)).to(vectors)
    chosen = [vectors[0]]
    nearest = distance(vectors, chosen[0])
    for draw in random[1:]:
        reached = nearest.cumsum(0)
        place = torch.searchsorted(reached, draw * reached[-1]).clamp(max=len(vectors) - 1)
        chosen.append(vectors[place])
        nearest = torch.minimum(nearest, distance(vectors, chosen[-1]))
    return torch.stack(chosen)


def _apart(vectors: Tensor, centroids: Tensor) -> Tensor:
    return -(vectors @ centroids.T)


def _direction(sums: Tensor, members: Tensor) -> Tensor:
    return F.normalize(sums, dim=1)


def _mean(sums: Tensor, members: Tensor) -> Tensor:
    return sums / members[:, None]
