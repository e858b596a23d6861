"""Which parts of a patch are hidden."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.shapes import Shape3D
from medssl.views.on_device import on_device


def block_mask(
    random: SampleRandom, name: str, *, shape: Shape3D, block: Shape3D, ratio: float
) -> Bool[Tensor, "b 1 d h w"]:
    """(B, 1, *shape), true = hidden: in each sample exactly round(ratio * n) of its n blocks, drawn without
    replacement.

    Where an edge of `shape` is no multiple of the block, the last blocks along it are thinner; they count as blocks
    like all others. Raises ConfigError for a ratio outside 0..1.
    """
    cells = (math.ceil(shape[0] / block[0]), math.ceil(shape[1] / block[1]), math.ceil(shape[2] / block[2]))
    hidden = token_mask(random, name, tokens=math.prod(cells), ratio=ratio)
    return blocks_to_voxels(hidden.view(-1, *cells), shape=shape, block=block)


def cube_mask(
    random: SampleRandom, name: str, *, shape: Shape3D, count: int, edge: tuple[int, int]
) -> Bool[Tensor, "b 1 d h w"]:
    """(B, 1, *shape), true = hidden: `count` cuboids per sample, anywhere in the patch, that may overlap.

    edge: shortest and longest edge in voxels, drawn for each axis of each cuboid alike and independently. Raises
    ConfigError for edges that do not fit the shape.
    """
    if not 1 <= edge[0] <= edge[1] <= min(shape):
        raise ConfigError(
            f"mask edges {edge} do not fit a patch of {shape} (D, H, W). Give (shortest, longest) in voxels."
        )
    lengths = (edge[0] + random.uniform(f"{name}/edges", 0.0, 1.0, (count, 3)) * (edge[1] - edge[0] + 1)).floor()
    room = on_device(shape, random.device) - lengths + 1
    starts = (random.uniform(f"{name}/starts", 0.0, 1.0, (count, 3)) * room).floor()
    lines = []
    for axis, length in enumerate(shape):
        index = torch.arange(length, device=random.device)
        first = starts[:, :, axis, None]
        lines.append((index >= first) & (index < first + lengths[:, :, axis, None]))  # (B, count, length)
    hidden = torch.zeros((len(random.numbers), *shape), dtype=torch.bool, device=random.device)
    for d, h, w in zip(*(line.unbind(dim=1) for line in lines), strict=True):
        hidden |= d[:, :, None, None] & h[:, None, :, None] & w[:, None, None, :]
    return hidden[:, None]


def token_mask(random: SampleRandom, name: str, *, tokens: int, ratio: float) -> Bool[Tensor, "b n"]:
    """(B, tokens), true = hidden: exactly round(ratio * tokens) in each sample."""
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(
            f"a mask ratio of {ratio} is not between 0 and 1. Give the share of blocks to hide, such as 0.6."
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
