"""Which parts of a patch are hidden."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.shapes import Shape3D


def block_mask(
    random: SampleRandom, name: str, *, shape: Shape3D, block: Shape3D, ratio: float
) -> Bool[Tensor, "b 1 d h w"]:
    """(B, 1, *shape), true = hidden: in each sample exactly round(ratio * n) of its n blocks, drawn without
    replacement.

    If an edge of `shape` is not a multiple of the block, the last blocks along it are thinner; they count as blocks
    like all others. Raises ConfigError for a ratio outside 0..1.
    """
    cells = (math.ceil(shape[0] / block[0]), math.ceil(shape[1] / block[1]), math.ceil(shape[2] / block[2]))
    hidden = token_mask(random, name, tokens=math.prod(cells), ratio=ratio)
    return blocks_to_voxels(hidden.view(-1, *cells), shape=shape, block=block)


def token_mask(random: SampleRandom, name: str, *, tokens: int, ratio: float) -> Bool[Tensor, "b n"]:
    """(B, tokens), true = hidden: exactly round(ratio * tokens) in each sample."""
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(
            f"a mask ratio of {ratio} is not between 0 and 1. Give the fraction of blocks to hide, such as 0.6."
        )
    order = random.permutations(name, tokens)
    return order < round(ratio * tokens)


def blocks_to_voxels(
    blocks: Bool[Tensor, "b bd bh bw"], *, shape: Shape3D, block: Shape3D
) -> Bool[Tensor, "b 1 d h w"]:
    """(B, 1, *shape): every voxel has the value of its block; the last blocks are clipped to the shape."""
    out = blocks
    for axis, (edge, length) in enumerate(zip(block, shape, strict=True)):
        cell = torch.arange(length, device=blocks.device) // edge
        out = out.index_select(1 + axis, cell)
    return out[:, None]
