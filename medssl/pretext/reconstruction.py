"""Errors of reconstructed volumes, and the voxels that enter them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.shapes import Shape3D


def voxel_error(prediction: Tensor, target: Tensor, *, kind: str = "l2") -> Tensor:
    """(B, C, D, H, W) error of each voxel in the target's precision: squared (`l2`) or absolute (`l1`)."""
    difference = prediction.to(target.dtype) - target
    return difference.abs() if kind == "l1" else difference.square()


def scored_mean(error: Tensor, scored: Tensor) -> Tensor:
    """(B,) weighted mean of `error` over the voxels of each sample.

    A sample without a scored voxel gives 0, which looks like a perfect answer: `valid_fraction` tells the two apart.

    Args:
        error: (B, C, D, H, W).
        scored: mask or weights, with the channels of `error` or one for all.
    """
    # Per sample, not over the voxels of the batch: with equally many samples per rank, the mean of these means over
    # ranks is the mean over all samples, so that N ranks equal one process whatever each rank's masks are.
    weight = scored.to(error.dtype).expand_as(error)
    return (error * weight).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp_min(1e-6)


def valid_fraction(scored: Tensor) -> Tensor:
    """(B,) fraction of voxels where `scored` (mask or weights) is not zero, for `Step.valid_fraction`."""
    return (scored != 0).flatten(1).float().mean(dim=1)


def block_moments(volume: Tensor, block: Shape3D) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of each block of `block` voxels, spread over its voxels: two tensors like `volume`.

    Blocks lie on the grid that starts at voxel 0; at the far edge they may be smaller.
    """
    count = spread(_block_sums(torch.ones_like(volume[:1]), block), block, volume)
    mean = spread(_block_sums(volume, block), block, volume) / count
    # of the differences, not E[x^2] - E[x]^2, which cancels in float32 when a block's mean is large
    squares = spread(_block_sums((volume - mean).square(), block), block, volume)
    return mean, squares / (count - 1).clamp_min(1)


def spread(cells: Tensor, block: Shape3D, like: Tensor) -> Tensor:
    """One value per block to one per voxel: (B, C, D, H, W) with the spatial shape of `like`."""
    for axis, edge in zip((2, 3, 4), block, strict=True):
        cells = cells.repeat_interleave(edge, dim=axis).narrow(axis, 0, like.shape[axis])
    return cells


def informative(target: Tensor, block: Shape3D, *, floor: float) -> Tensor:
    """(B, C, D, H, W) bool: voxels of blocks whose standard deviation is at least `floor` (in the target's units).

    Air and padding hardly vary: predicting them is easy and says nothing about anatomy.
    """
    return block_moments(target, block)[1] >= floor**2


def mismatched_error(prediction: Tensor, target: Tensor, scored: Tensor, *, kind: str = "l2") -> Tensor | None:
    """(B,) negative energy: `scored_mean` of each prediction against the sample before it; None for a batch of one."""
    if len(target) < 2:
        return None
    return scored_mean(voxel_error(prediction.detach(), target.roll(1, dims=0), kind=kind), scored)


def _block_sums(volume: Tensor, block: Shape3D) -> Tensor:
    """(B, C, ceil(D / block), ...) sum over each block; voxels beyond the edge count as 0."""
    short = [(-edge) % step for edge, step in zip(volume.shape[2:], block, strict=True)]
    padded = F.pad(volume, (0, short[2], 0, short[1], 0, short[0]))
    return F.avg_pool3d(padded, block) * (block[0] * block[1] * block[2])
