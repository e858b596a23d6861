"""Spherical k-means: clusters of directions.

Dhillon and Modha 2001; DeepCluster-v2 (in arXiv 2006.09882) uses it on embeddings.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def spherical_kmeans(
    vectors: Float[Tensor, "n f"], start: Float[Tensor, "k f"], *, iterations: int
) -> tuple[Float[Tensor, "k f"], Int[Tensor, "n"]]:
    """Unit centroids, and the number of the centroid nearest to each of N unit vectors.

    start: first centroids. A cluster that loses all its members moves to the vector that is farthest from its own
    centroid, because an empty one would stay empty. Draws nothing at random.
    """
    centroids, count = F.normalize(start, dim=1), len(start)
    for _ in range(iterations):
        cosine, nearest = (vectors @ centroids.T).max(dim=1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, vectors)
        empty = torch.bincount(nearest, minlength=count) == 0
        spare = vectors[cosine.topk(min(count, len(vectors)), largest=False).indices]
        order = (empty.cumsum(0) - 1).clamp(
            min=0, max=len(spare) - 1
        )  # the first empty cluster takes the farthest vector
        centroids = F.normalize(torch.where(empty[:, None], spare[order], sums), dim=1)
    return centroids, (vectors @ centroids.T).argmax(dim=1)


@torch.no_grad()
def spread_start(vectors: Float[Tensor, "n f"], count: int) -> Float[Tensor, "k f"]:
    """First centroids far from each other: k-means++ (Arthur and Vassilvitskii 2007) with the same draws every time.

    Each is one of the vectors, taken with a chance proportional to its distance from the nearest one taken before.
    """
    draws = torch.rand(count, generator=torch.Generator().manual_seed(0)).to(vectors)
    chosen = [vectors[0]]
    distance = 1 - vectors @ chosen[0]
    for draw in draws[1:]:
        reached = distance.clamp(min=0).cumsum(0)
        place = torch.searchsorted(reached, draw * reached[-1]).clamp(max=len(vectors) - 1)
        chosen.append(vectors[place])
        distance = torch.minimum(distance, 1 - vectors @ chosen[-1])
    return torch.stack(chosen)
