"""Affine and elastic geometry of a patch: one matrix and one smooth displacement, then one resampling."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor

from medssl.shapes import Shape3D
from medssl.views.filters import along_axis
from medssl.views.on_device import on_device
from medssl.views.sampling import resample

# The order in which MONAI's `create_shear` applies its six coefficients.
SHEAR_INDICES = ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))


def rotation_matrix(angles_rad: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Intrinsic turns about the first, second and third axis, as MONAI's `create_rotate`."""
    out = torch.eye(3, device=angles_rad.device).expand(len(angles_rad), 3, 3)
    # (row, column) of minus sine for a turn about each axis; the second axis turns the other way round.
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        cos, sin = angles_rad[:, axis].cos(), angles_rad[:, axis].sin()
        turn = torch.eye(3, device=angles_rad.device).repeat(len(angles_rad), 1, 1)
        turn[:, i, i], turn[:, j, j], turn[:, i, j], turn[:, j, i] = cos, cos, -sin, sin
        out = out @ turn
    return out


def shear_matrix(coefficients: Float[Tensor, "b 6"]) -> Float[Tensor, "b 3 3"]:
    """Six elementary shears one after the other, as MONAI's `create_shear`."""
    out = torch.eye(3, device=coefficients.device).expand(len(coefficients), 3, 3)
    for index, (i, j) in enumerate(SHEAR_INDICES):
        single = torch.eye(3, device=coefficients.device).repeat(len(coefficients), 1, 1)
        single[:, i, j] = coefficients[:, index]
        out = single @ out
    return out


def affine_matrix(
    *,
    rotate_rad: Float[Tensor, "b 3"],
    shear: Float[Tensor, "b 6"],
    translate_voxels: Float[Tensor, "b 3"],
    scale: Float[Tensor, "b 3"],
) -> Float[Tensor, "b 3 4"]:
    """Output to input voxel, both counted from the middle: rotation, shear, translation, scaling from left to right,
    as MONAI's AffineGrid.
    """
    turned = rotation_matrix(rotate_rad) @ shear_matrix(shear)
    return torch.cat([turned * scale[:, None, :], turned @ translate_voxels[:, :, None]], dim=2)


def about_the_middle(
    centred: Float[Tensor, "b 3 4"], *, source: Sequence[int], target: Shape3D
) -> Float[Tensor, "b 3 4"]:
    """The matrix between voxel indices, from one between positions relative to the middles of source and target."""
    middles = on_device([(n - 1) / 2 for n in (*source, *target)], centred.device)
    shift = centred[:, :, 3] + middles[:3] - (centred[:, :, :3] @ middles[3:, None])[:, :, 0]
    return torch.cat([centred[:, :, :3], shift[:, :, None]], dim=2)


def elastic_displacement(control_voxels: Float[Tensor, "b 3 gd gh gw"], size: Shape3D) -> Float[Tensor, "b 3 d h w"]:
    """Cubic B-spline over a coarse grid of displacements: smooth, and never larger than the largest of them.

    The grid spans the patch with one control point beyond each face; it has at least four points per axis.
    """
    out = control_voxels
    for axis, length in enumerate(size):
        out = along_axis(out, spline_matrix(length, control_voxels.shape[2 + axis], control_voxels.device)[None], axis)
    return out


def spline_matrix(length: int, points: int, device: torch.device) -> Float[Tensor, "length points"]:
    """Weights of the control points for each voxel of a line; every row sums to one."""
    position = torch.linspace(1.0, points - 2.0, length, device=device)
    distance = (position[:, None] - torch.arange(points, device=device, dtype=torch.float32)[None]).abs()
    near = (4.0 - 6.0 * distance**2 + 3.0 * distance**3) / 6.0
    far = (2.0 - distance).clamp_min(0.0) ** 3 / 6.0
    return torch.where(distance < 1.0, near, far)


def warp(
    images: Num[Tensor, "b c d h w"],
    matrix: Float[Tensor, "b 3 4"],
    *,
    size: Shape3D,
    displacement: Float[Tensor, "b 3 d2 h2 w2"] | None = None,
    labels: bool = False,
    pad_value: Float[Tensor, " b"] | None = None,
) -> Tensor:
    """(B, C, *size) in one resample; linear, or nearest where `labels`, in the type of the images.

    outside: value beyond the edge, or 0.
    """
    shift = None if pad_value is None else pad_value.float().view(-1, 1, 1, 1, 1)
    source = images.float() if shift is None else images.float() - shift
    mode = "nearest" if labels else "bilinear"
    # grid_sample in half precision would place voxels to a tenth of a voxel only: the arithmetic is float32.
    with torch.autocast(images.device.type, enabled=False):
        out = resample(source, matrix.float(), size, mode=mode, displacement=displacement)
    return (out if shift is None else out.add_(shift)).to(images.dtype)
