"""How often each axis of a patch is halved, and which axes a kernel spans.

The rule is nnU-Net's (Isensee et al. 2021, "nnU-Net: a self-configuring method", experiment planning): an axis is
halved while at least 4 voxels remain; axes whose voxels are twice as long as the shortest wait until the others have
caught up, and until then kernels do not span them.
"""

from dataclasses import dataclass

from medssl.errors import ConfigError
from medssl.shapes import Shape3D, Spacing3D

SMALLEST_EDGE_VOXELS = 4
ANISOTROPY = 2.0
MIN_LEVELS = 3  # MONAI's DynUNet refuses less
AXES = "DHW"


@dataclass(frozen=True)
class Topology:
    """Strides and kernels per level, finest first; each (D, H, W)."""

    strides: tuple[Shape3D, ...]
    kernel_size: tuple[Shape3D, ...]
    smallest_edges_voxels: Shape3D


def plan_levels(patch: Shape3D, *, spacing_mm: Spacing3D | None, max_levels: int) -> Topology:
    """Levels that a patch (D, H, W) carries, `max_levels` at most. `spacing_mm` of D, H, W; None: cubic voxels.

    Every halving is exact: a patch edge is a multiple of its strides. Raises ConfigError for a patch that carries fewer
    than three levels or whose odd edges stop the halving early.
    """
    edges, spacing = list(patch), list(spacing_mm or (1.0, 1.0, 1.0))
    spans, strides, kernels = [1, 1, 1], [(1, 1, 1)], []
    while len(strides) < max_levels:
        halved = _axes_to_halve(edges, spacing)
        if not halved:
            break
        spans = [
            3 if span == 3 or gap / min(spacing) < ANISOTROPY else 1 for span, gap in zip(spans, spacing, strict=True)
        ]
        kernels.append(_triple(spans))
        stride = _triple([2 if axis in halved else 1 for axis in range(3)])
        edges = [edge // step for edge, step in zip(edges, stride, strict=True)]
        spacing = [gap * step for gap, step in zip(spacing, stride, strict=True)]
        strides.append(stride)
    _check(patch, edges, max_levels=max_levels, levels=len(strides))
    return Topology(tuple(strides), (*kernels, (3, 3, 3)), _triple(edges))


def _axes_to_halve(edges: list[int], spacing: list[float]) -> list[int]:
    axes = [axis for axis in range(3) if edges[axis] >= 2 * SMALLEST_EDGE_VOXELS and edges[axis] % 2 == 0]
    finest = min((spacing[axis] for axis in axes), default=0.0)
    axes = [axis for axis in axes if spacing[axis] / finest < ANISOTROPY]
    # A single long axis is only worth another level while it stays clearly longer than the floor (nnU-Net's rule).
    return [] if len(axes) == 1 and edges[axes[0]] < 3 * SMALLEST_EDGE_VOXELS else axes


def _check(patch: Shape3D, edges: list[int], *, max_levels: int, levels: int) -> None:
    for axis, (name, edge, remaining) in enumerate(zip(AXES, patch, edges, strict=True)):
        stopped_early = levels < max_levels or remaining * 2 ** (levels - 1) > edge
        if remaining % 2 and remaining >= 4 * SMALLEST_EDGE_VOXELS and stopped_early:
            near = max(8, round(edge / 8) * 8)
            advice = list(patch)
            advice[axis] = near
            raise ConfigError(
                f"patch edge {name} = {edge} voxels stops at {remaining} when it is halved, which is odd. "
                f"Take a multiple of 8 (16 or 32 for large networks): patch {advice}."
            )
    if levels < MIN_LEVELS:
        raise ConfigError(
            f"a patch of {list(patch)} voxels (D, H, W) carries {levels} resolution level(s), and the network needs "
            f"{MIN_LEVELS}. Take edges of at least {SMALLEST_EDGE_VOXELS * 2 ** (MIN_LEVELS - 1)} voxels that are "
            "multiples of 4."
        )


def _triple(values: list[int]) -> Shape3D:
    d, h, w = values
    return d, h, w
