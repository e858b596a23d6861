"""Blocks of a patch that are hidden from the encoder."""

from torch import Tensor

from medssl.pretext.tiles import volume_edges
from medssl.randomness import SampleRandom
from medssl.shapes import Shape3D
from medssl.views.masks import block_mask


def hide_blocks(
    volume: Tensor, random: SampleRandom, *, block: int | str, ratio: float, step: Shape3D = (1, 1, 1)
) -> tuple[Tensor, Shape3D]:
    """(B, 1, D, H, W) bool, true where hidden, and the edges of a block.

    Args:
        volume: (B, C, D, H, W).
        random: of its samples.
        block: as in `block_edges`.
        ratio: fraction of the blocks that is hidden.
        step: as in `block_edges`.
    """
    shape = volume_edges(volume)
    edges = block_edges(block, shape, step=step)
    return block_mask(random, "hidden", shape=shape, block=edges, ratio=ratio), edges


def block_edges(block: int | str, patch: Shape3D, *, step: Shape3D = (1, 1, 1)) -> Shape3D:
    """Edges (D, H, W) of a hidden block in voxels, at most half of the patch before they are rounded up to `step`.

    Args:
        block: edge in voxels. "auto" is, per axis, an eighth of the patch as a power of two from 4 to 16.
        patch: edges (D, H, W) of the patch in voxels.
        step: what the edges must be multiples of: the encoder's stride where whole cells are hidden.
    """
    edges = [_auto_edge(edge) if block == "auto" else min(int(block), max(1, edge // 2)) for edge in patch]
    d, h, w = (-(-edge // size) * size for edge, size in zip(edges, step, strict=True))
    return d, h, w


def _auto_edge(edge: int) -> int:
    power = 1 << max(0, (edge // 8).bit_length() - 1)
    return min(16, max(4, power), max(1, edge // 2))
