"""Patches out of a batch of boxes: by slicing where they are windows of whole voxels, else by one fused resample.

Matrices are (B, 3, 4) in voxels, (d, h, w) order: box voxel = matrix @ (patch voxel, 1).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from medssl.shapes import Shape3D


def coordinates(matrix: Float[Tensor, "b 3 4"], size: Shape3D) -> list[Tensor]:
    """Per axis d, h, w of the box a (B, D, H, W) tensor: where each patch voxel lies."""
    out = matrix.new_empty((3, len(matrix), *size))
    for axis in range(3):
        _coordinates_into(out[axis], matrix[:, axis])
    return list(out)


def _coordinates_into(out: Float[Tensor, "b d h w"], row: Float[Tensor, "b 4"]) -> None:
    """One row of the matrix times every patch voxel, by broadcasting: one pass over the patch."""
    d, h, w = (torch.arange(n, device=row.device, dtype=row.dtype) for n in out.shape[1:])
    by_d, by_h, by_w, shift = row[:, :, None, None, None].unbind(dim=1)
    plane = by_h * h.view(1, 1, -1, 1) + (by_w * w + shift)
    torch.add(plane, by_d * d.view(1, -1, 1, 1), out=out)


def resample(
    volumes: Float[Tensor, "b c d h w"],
    matrix: Float[Tensor, "b 3 4"],
    size: Shape3D,
    *,
    mode: str = "bilinear",
    displacement: Float[Tensor, "b 3 pd ph pw"] | None = None,
) -> Tensor:
    """(B, C, *size): each patch voxel's value in its volume; zero beyond the last voxel centres, to which values fall
    off over one voxel.

    displacement: further shift of every patch voxel, in voxels of the volume along d, h, w.
    """
    # grid_sample counts from -1 to 1 between the outer faces: the scaling goes into the matrix, not over every voxel.
    scaled = matrix.clone()
    for axis, length in enumerate(volumes.shape[2:]):
        scaled[:, axis] *= 2 / length
        scaled[:, axis, 3] += 1 / length - 1.0
    # One plane per axis while they are written (a third of the time), interleaved only as a view, in the order w, h, d.
    grid = torch.empty((len(matrix), 3, *size), device=volumes.device, dtype=volumes.dtype)
    for axis in range(3):
        _coordinates_into(grid[:, 2 - axis], scaled[:, axis])
        if displacement is not None:
            grid[:, 2 - axis].add_(displacement[:, axis], alpha=2 / volumes.shape[2 + axis])
    return F.grid_sample(volumes, grid.permute(0, 2, 3, 4, 1), mode=mode, padding_mode="zeros", align_corners=False)


def window(volume: Tensor, matrix: Float[Tensor, "3 4"], size: Shape3D, *, pad_value: Tensor) -> Tensor:
    """(C, *size) patch of a (C, D, H, W) volume by slicing, for a matrix on the host that mirrors and swaps whole
    voxels only.

    outside: scalar tensor, the value of what lies beyond the volume.
    """
    linear = matrix[:, :3].round().long()
    axes = linear.abs().argmax(dim=0).tolist()  # patch axis -> volume axis
    signs = [int(linear[a, p]) for p, a in enumerate(axes)]
    extent = [0, 0, 0]
    start = matrix[:, 3].round().long().tolist()
    for patch_axis, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        extent[axis] = size[patch_axis]
        start[axis] -= (size[patch_axis] - 1) if sign < 0 else 0
    cut = _cut(volume, start, extent, pad_value)
    mirrored = [1 + p for p, sign in enumerate(signs) if sign < 0]
    return cut.permute(0, *(1 + a for a in axes)).flip(mirrored)


def _cut(volume: Tensor, start: list[int], extent: list[int], pad_value: Tensor) -> Tensor:
    """(C, *extent) from `start` on; a view where it lies inside the volume."""
    shape = volume.shape[1:]
    low = [max(0, s) for s in start]
    high = [min(n, s + e) for n, s, e in zip(shape, start, extent, strict=True)]
    inside = volume[:, low[0] : max(low[0], high[0]), low[1] : max(low[1], high[1]), low[2] : max(low[2], high[2])]
    if list(inside.shape[1:]) == extent:
        return inside
    out = pad_value.expand(len(volume), *extent).clone()
    d, h, w = (slice(a - s, a - s + n) for a, s, n in zip(low, start, inside.shape[1:], strict=True))
    out[:, d, h, w] = inside
    return out


def inside_scan(
    matrix: Float[Tensor, "b 3 4"], size: Shape3D, scan_shape: Float[Tensor, "b 3"]
) -> Bool[Tensor, "b 1 d h w"]:
    """True where a patch voxel's centre lies within a voxel of the scan. matrix: patch voxel to scan voxel."""
    valid = None
    for axis, position in enumerate(coordinates(matrix, size)):
        length = scan_shape[:, axis].view(-1, 1, 1, 1)
        within = (position >= -0.5) & (position < length - 0.5)
        valid = within if valid is None else valid & within
    return valid[:, None]  # type: ignore[index]  # there are three axes
