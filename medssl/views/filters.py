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
    reach = ((TRUNCATED * sigma).clamp_min(0.5) + 0.5).floor()
    return weights.clamp_min(0.0) * (distance <= reach)


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
    for row, share in enumerate(zoom):
        coarse = [max(1, round(n * share)) for n in size]
        small = F.interpolate(images[row : row + 1].float(), size=coarse, mode=down)
        out[row] = F.interpolate(small, size=tuple(size), mode="trilinear", align_corners=False)[0]
    return out
