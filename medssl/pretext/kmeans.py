"""k-means of directions and of descriptors, deterministic: every rank finds the same clusters.

Lloyd 1982, with the initialisation of Arthur and Vassilvitskii 2007 (k-means++). On directions it is the spherical
k-means of Dhillon and Modha 2001, which DeepCluster-v2 (in arXiv 2006.09882) uses on embeddings.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

# (N, F), (K, F) to (N, K): distance of each vector to each centroid, up to a constant per vector.
Distance = Callable[[Tensor, Tensor], Tensor]
# Sums (K, F) and counts (K,) of the members of each cluster, to centroids (K, F).
CentroidRule = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def spherical_kmeans(
    vectors: Float[Tensor, "n f"], start: Float[Tensor, "k f"], *, iterations: int
) -> tuple[Float[Tensor, "k f"], Int[Tensor, "n"]]:
    """Unit centroids, and the number of the centroid nearest to each of N unit vectors.

    Args:
        vectors: of length 1.
        start: first centroids.
        iterations: rounds of Lloyd's algorithm.
    """
    centroids = _rounds(vectors, F.normalize(start, dim=1), _negative_cosine, _direction, iterations=iterations)
    return centroids, _negative_cosine(vectors, centroids).argmin(dim=1)


@torch.no_grad()
def euclidean_kmeans(vectors: Float[Tensor, "n f"], count: int, *, iterations: int) -> Float[Tensor, "k f"]:
    """(count, F) centroids of N vectors. With fewer distinct vectors than clusters, some centroids coincide."""
    start = _initial_centroids(vectors, count, lambda rows, chosen: (rows - chosen).square().sum(dim=1))
    return _rounds(vectors, start, squared_distances, _mean, iterations=iterations)


@torch.no_grad()
def kmeans_plus_plus(vectors: Float[Tensor, "n f"], count: int) -> Float[Tensor, "k f"]:
    """First centroids for `spherical_kmeans`: `count` of N unit vectors that lie far from each other."""
    return _initial_centroids(vectors, count, lambda rows, chosen: (1 - rows @ chosen).clamp(min=0))


def nearest_centroid(vectors: Float[Tensor, "n f"], centroids: Float[Tensor, "k f"]) -> Int[Tensor, "n"]:
    """Number of the centroid nearest to each vector, by Euclidean distance."""
    return squared_distances(vectors, centroids).argmin(dim=1)


def squared_distances(vectors: Float[Tensor, "n f"], centroids: Float[Tensor, "k f"]) -> Float[Tensor, "n k"]:
    """|v - c|^2 = |v|^2 - 2 v.c + |c|^2: one matrix product instead of (N, K, F) differences."""
    squares = vectors.square().sum(dim=1, keepdim=True) + centroids.square().sum(dim=1)
    return (squares - 2 * vectors @ centroids.T).clamp_min(0)


def _rounds(
    vectors: Tensor, centroids: Tensor, distance: Distance, centroid_of: CentroidRule, *, iterations: int
) -> Tensor:
    """Centroids after some rounds of Lloyd's algorithm."""
    # A cluster that loses all members would stay empty for ever. It moves to the vector that lies farthest from its
    # centroid: the first empty cluster to the farthest, the second to the second farthest. Written without `if`, since
    # the number of empty clusters is known on the device alone.
    count = len(centroids)
    for _ in range(iterations):
        distances, nearest = distance(vectors, centroids).min(dim=1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, vectors)
        members = torch.bincount(nearest, minlength=count)
        empty = members == 0
        farthest = vectors[distances.topk(min(count, len(vectors))).indices]
        order = (empty.cumsum(0) - 1).clamp(min=0, max=len(farthest) - 1)
        centroids = centroid_of(torch.where(empty[:, None], farthest[order], sums), members.clamp(min=1))
    return centroids


def _initial_centroids(vectors: Tensor, count: int, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """k-means++ with the same random numbers every time.

    Each vector is chosen with a probability proportional to its `distance` to the nearest one chosen before.
    """
    random = torch.rand(count, generator=torch.Generator().manual_seed(0)).to(vectors)
    chosen = [vectors[0]]
    nearest = distance(vectors, chosen[0])
    for draw in random[1:]:
        reached = nearest.cumsum(0)
        index = torch.searchsorted(reached, draw * reached[-1]).clamp(max=len(vectors) - 1)
        chosen.append(vectors[index])
        nearest = torch.minimum(nearest, distance(vectors, chosen[-1]))
    return torch.stack(chosen)


def _negative_cosine(vectors: Tensor, centroids: Tensor) -> Tensor:
    return -(vectors @ centroids.T)


def _direction(sums: Tensor, members: Tensor) -> Tensor:
    return F.normalize(sums, dim=1)


def _mean(sums: Tensor, members: Tensor) -> Tensor:
    return sums / members[:, None]
