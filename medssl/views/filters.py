"""Blur and loss of resolution, with one set of parameters per sample. Nothing is written to the input."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Gaussians are cut off at so many standard deviations, as MONAI's GaussianSmooth does.
TRUNCATED = 4.0


def blur(images: Float[Tensor, "b c d h w"], sigma_voxels: Float[Tensor, "b 3"]) -> Float[Tensor, "b c d h w"]:
    """Gaussian blur, sigma along d, h, w per sample in voxels, zeros beyond the edge; weights integrate the Gaussian
    over each voxel.

    One small matrix per axis instead of a convolution: each sample has its own kernel, and matrix products are what
    every device does best.
    """
    device = images.device.type
    with torch.autocast(device, enabled=False):
        out = images.float()
        for axis in range(3):
            out = along_axis(out, gaussian_matrix(sigma_voxels[:, axis].float(), images.shape[2 + axis]), axis)
    return out.to(images.dtype)


def gaussian_matrix(sigma_voxels: Float[Tensor, " b"], length: int) -> Float[Tensor, "b n n"]:
    """(B, length, length): row i holds the weights of the voxels that make voxel i of the blurred line."""
    index = torch.arange(length, device=sigma_voxels.device, dtype=torch.float32)
    distance = (index[None, :] - index[:, None]).abs()[None]
    sigma = sigma_voxels.clamp_min(1e-6).view(-1, 1, 1)
    root = math.sqrt(0.5) / sigma
    weights = 0.5 * (torch.erf((distance + 0.5) * root) - torch.erf((distance - 0.5) * root))
    # MONAI's kernel reaches int(max(truncated * sigma, 0.5) + 0.5) voxels and is used as it is, without a sum of one.
    radius = ((TRUNCATED * sigma).clamp_min(0.5) + 0.5).floor()
    return weights.clamp_min(0.0) * (distance <= radius)


def along_axis(images: Float[Tensor, "b c d h w"], matrix: Float[Tensor, "_ m n"], axis: int) -> Tensor:
    """Each line of n voxels along axis 0, 1 or 2 (d, h, w) multiplied by the sample's (m, n) matrix, or by one for
    all.
    """
    B, C, D, H, W = images.shape
    M = matrix.shape[1]
    if axis == 0:
        return (matrix[:, None] @ images.reshape(B, C, D, H * W)).view(B, C, M, H, W)
    if axis == 1:
        return matrix[:, None, None] @ images
    return (images.reshape(B, C * D * H, W) @ matrix.transpose(1, 2)).view(B, C, D, H, M)


def low_resolution(
    images: Float[Tensor, "b c d h w"], zoom: Sequence[float], *, down: str = "nearest-exact"
) -> Float[Tensor, "b c d h w"]:
    """Each sample taken down to `zoom` of its size (nearest voxels) and back up (trilinear): what a coarser scan would
    show.

    zoom: on the host, as it sets the sizes of what is computed. down: "nearest" is MONAI's, which shifts by up to half
    a coarse voxel.
    """
    size = images.shape[2:]
    out = torch.empty_like(images)
    with torch.autocast(images.device.type, enabled=False):
        for row, factor in enumerate(zoom):
            coarse = [max(1, round(n * factor)) for n in size]
            up = F.interpolate(images[row : row + 1].float(), size=coarse, mode=down)
            for axis in (2, 1, 0):  # the axis whose lines lie in memory first, while the volume is small
                up = along_axis(up, linear_matrix(size[axis], coarse[axis], device=images.device)[None], axis)
            out[row] = up[0]
    return out


def linear_matrix(fine: int, coarse: int, *, device: torch.device) -> Float[Tensor, "fine coarse"]:
    """Weights of linear interpolation from `coarse` voxels to `fine` over the same extent, the outermost voxels held
    beyond their centres: `F.interpolate(align_corners=False)`, as a matrix product, which takes half the time on a CPU.
    """
    position = ((torch.arange(fine, device=device) + 0.5) * (coarse / fine) - 0.5).clamp(0, coarse - 1)
    return (1 - (position[:, None] - torch.arange(coarse, device=device)).abs()).clamp_min(0)
