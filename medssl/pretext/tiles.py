"""Cutting a volume into tiles that the encoder sees one by one, and joining tiles to a volume."""

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from medssl.shapes import Shape3D


def tile_edges(patch: Shape3D, divisor: Shape3D, *, parts: Shape3D = (2, 2, 2)) -> Shape3D:
    """Edges (D, H, W) of a tile: `patch` over `parts`, rounded down to what the encoder can take.

    A tile that would leave a single voxel at the encoder's deepest level is doubled: instance normalisation of one
    voxel is zero for every image.

    Args:
        patch: edges (D, H, W) of the patch in voxels.
        divisor: of the encoder.
        parts: tiles along D, H, W.
    """
    edges = [max(1, patch[i] // parts[i] // divisor[i]) * divisor[i] for i in range(3)]
    if all(edge == step for edge, step in zip(edges, divisor, strict=True)):
        edges = [2 * edge for edge in edges]
    return edges[0], edges[1], edges[2]


def volume_edges(volume: Tensor) -> Shape3D:
    """Edges (D, H, W) of a volume (B, C, D, H, W) in voxels."""
    _, _, depth, height, width = volume.shape
    return depth, height, width


def cut_tiles(volume: Tensor, *, grid: Shape3D, tile: Shape3D, offsets: npt.NDArray[np.int64] | None = None) -> Tensor:
    """(B, n, C, *tile): one tile from each cell of an even grid.

    Args:
        volume: (B, C, D, H, W).
        grid: cells along D, H, W; n of them, W fastest.
        tile: edges (D, H, W) of a tile in voxels.
        offsets: (B, n, 3) first voxel of each tile within its cell; the cell's first voxel by default.
    """
    cell = [edge // parts for edge, parts in zip(volume.shape[2:], grid, strict=True)]
    if offsets is None:
        offsets = np.zeros((len(volume), grid[0] * grid[1] * grid[2], 3), np.int64)
    starts = offsets + np.array([[p * c for p, c in zip(index, cell, strict=True)] for index in np.ndindex(*grid)])
    rows = [
        torch.stack([image[:, d : d + tile[0], h : h + tile[1], w : w + tile[2]] for d, h, w in corners.tolist()])
        for image, corners in zip(volume, starts, strict=True)
    ]
    return torch.stack(rows)


def join_tiles(tiles: Tensor, *, grid: Shape3D) -> Tensor:
    """(B, C, D, H, W) from (B, n, C, d, h, w) on a grid of n cells, W fastest; the inverse of `cut_tiles`."""
    joined: Tensor = rearrange(tiles, "b (p q r) c d h w -> b c (p d) (q h) (r w)", p=grid[0], q=grid[1], r=grid[2])
    return joined


def normalised_tiles(tiles: Tensor, *, floor: float = 0.05) -> Tensor:
    """Tiles with mean 0 and standard deviation 1 per channel, so that intensity drift does not reveal their position.

    Args:
        tiles: (B, n, C, d, h, w).
        floor: smallest standard deviation to divide by, in units of the normalised scan; a tile of air stays flat.
    """
    axes = (3, 4, 5)
    centred = tiles - tiles.mean(dim=axes, keepdim=True)
    return centred / centred.square().mean(dim=axes, keepdim=True).sqrt().clamp_min(floor)
