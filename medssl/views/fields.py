"""What scanners add to an image: noise, bias field, ringing; one set of parameters per sample.

Nothing is written to the input.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from medssl.views.contrast import per_sample
from medssl.views.filters import along_axis


def gaussian_noise(
    images: Float[Tensor, "b c d h w"],
    field: Float[Tensor, "b c d h w"],
    std: Float[Tensor, " b"],
    *,
    mean: float = 0.0,
) -> Float[Tensor, "b c d h w"]:
    """The images with field * std + mean added, the field being standard normal."""
    out = torch.addcmul(images.float(), field, per_sample(std, field))
    return (out.add_(mean) if mean else out).to(images.dtype)


def rician_noise(
    images: Float[Tensor, "b c d h w"], real: Float[Tensor, "b c d h w"], imaginary: Float[Tensor, "b c d h w"]
) -> Float[Tensor, "b c d h w"]:
    """sqrt((v + real)^2 + imaginary^2): the magnitude of a complex signal with noise in both parts."""
    return torch.hypot(images.float() + real, imaginary).to(images.dtype)


def bias_field(
    images: Float[Tensor, "b c d h w"], coefficients: Float[Tensor, "b i j k"]
) -> Float[Tensor, "b c d h w"]:
    """Images * exp(field), the field being a sum of Legendre polynomials: coefficients[b, i, j, k] P_i(d) P_j(h)
    P_k(w) on [-1, 1].
    """
    field = coefficients.float()[:, None]
    for axis in range(3):
        basis = legendre(images.shape[2 + axis], coefficients.shape[1 + axis] - 1, images.device)
        field = along_axis(field, basis[None], axis)
    return (images.float() * field.exp_()).to(images.dtype)


def legendre(length: int, degree: int, device: torch.device) -> Float[Tensor, "length degrees"]:
    """P_0..P_degree at `length` points from -1 to 1, by Bonnet's recursion."""
    x = torch.linspace(-1.0, 1.0, length, device=device)
    rows = [torch.ones_like(x), x]
    for n in range(1, degree):
        rows.append(((2 * n + 1) * x * rows[n] - n * rows[n - 1]) / (n + 1))
    return torch.stack(rows[: degree + 1], dim=1)


def gibbs_ringing(images: Float[Tensor, "b c d h w"], alpha: Float[Tensor, " b"]) -> Float[Tensor, "b c d h w"]:
    """High spatial frequencies cut off: the fraction 1 - alpha of the half diagonal of k-space remains, as in MONAI's
    GibbsNoise.
    """
    shape = images.shape[2:]
    distance = torch.zeros((), device=images.device)
    for axis, length in enumerate(shape):
        index = torch.arange(length, device=images.device, dtype=torch.float32)
        # Unshifted order of the frequencies: cheaper than shifting the volume twice.
        along = torch.fft.ifftshift(index - (length - 1) / 2).square()
        distance = distance + along.view([-1 if a == axis else 1 for a in range(3)])
    radius = (1.0 - alpha.float()) * (max(shape) * math.sqrt(2.0) / 2.0)
    mask = distance.sqrt() <= per_sample(radius, images.float())  # (B, 1, D, H, W)
    spectrum = torch.fft.fftn(images.float(), dim=(2, 3, 4))
    ringing: Tensor = torch.fft.ifftn(spectrum * mask, dim=(2, 3, 4)).real
    return ringing.to(images.dtype)
