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
