"""Blocks of a patch that the encoder does not see."""

from torch import Tensor

from medssl.pretext.tiles import volume_edges
from medssl.randomness import SampleRandom
from medssl.shapes import Shape3D
from medssl.views.masks import block_mask


def hide_blocks(
    volume: Tensor, random: SampleRandom, *, asked: int | str, ratio: float, step: Shape3D = (1, 1, 1)
) -> tuple[Tensor, Shape3D]:
    """(B, 1, D, H, W), true = hidden, for volumes (B, C, D, H, W), and the edges of a block.

    asked, step: as in `block_edges`. ratio: share of the blocks, from 0 to 1.
    """
    edges = volume_edges(volume)
    block = block_edges(asked, edges, step=step)
    return block_mask(random, "hidden", shape=edges, block=block, ratio=ratio), block


def block_edges(asked: int | str, patch: Shape3D, *, step: Shape3D = (1, 1, 1)) -> Shape3D:
    """Edges (D, H, W) of a hidden block in voxels for such a patch: multiples of `step`, and otherwise at most half of
    the patch. As asked; "auto" is, per axis, an eighth of the patch as a power of two from 4 to 16.
    """
    edges = [_auto_edge(edge) if asked == "auto" else min(int(asked), max(1, edge // 2)) for edge in patch]
    whole = [-(-edge // size) * size for edge, size in zip(edges, step, strict=True)]
    return whole[0], whole[1], whole[2]


def _auto_edge(edge: int) -> int:
    power = 1 << max(0, (edge // 8).bit_length() - 1)
    return min(16, max(4, power), max(1, edge // 2))
