"""Changes of intensity voxel by voxel, with one set of parameters per sample. Nothing is written to the input.

images: (B, C, D, H, W). Parameters: (B,) tensors on the same device. Ranges and means are those of each sample, over
all its channels, as MONAI has them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# MONAI's AdjustContrast divides by the range plus this, so that a constant image stays finite.
EPSILON = 1e-7


def scale_and_shift(
    images: Float[Tensor, "b c d h w"], factor: Float[Tensor, " b"], shift: Float[Tensor, " b"]
) -> Float[Tensor, "b c d h w"]:
    """Images * factor + shift."""
    return torch.addcmul(per_sample(shift, images), images, per_sample(factor, images))


def stretch_contrast(images: Float[Tensor, "b c d h w"], factor: Float[Tensor, " b"]) -> Float[Tensor, "b c d h w"]:
    """Distance to the sample's mean times `factor`, kept within its darkest and brightest value before."""
    mean = images.mean(dim=(1, 2, 3, 4), keepdim=True, dtype=torch.float32).to(images.dtype)
    low, high = intensity_range(images)
    return ((images - mean).mul_(per_sample(factor, images)).add_(mean)).clamp_(low, high)


def gamma(
    images: Float[Tensor, "b c d h w"], exponent: Float[Tensor, " b"], *, invert: bool = False
) -> Float[Tensor, "b c d h w"]:
    """((v - low) / range) ** exponent * range + low, with the sample's low and range. invert: of the negative image."""
    if invert:
        return gamma(-images, exponent).neg_()
    low, high = (edge.float() for edge in intensity_range(images))
    # fp16 and bf16 cannot hold the powers of small fractions: the arithmetic is float32 throughout.
    fraction = (images.float() - low).div_(high - low + EPSILON)
    # Half the time of `pow` on a CPU; the darkest voxel goes through log 0 to exp(-inf) = 0.
    fraction.log_().mul_(per_sample(exponent, fraction)).exp_()
    return fraction.mul_(high - low).add_(low).to(images.dtype)


def window(
    images: Float[Tensor, "b c d h w"], low: Float[Tensor, " b"], high: Float[Tensor, " b"]
) -> Float[Tensor, "b c d h w"]:
    """Values clipped to [low, high] and stretched back over the sample's range: another window on the same CT."""
    darkest, brightest = (edge.float() for edge in intensity_range(images))
    a, b = per_sample(low.float(), darkest), per_sample(high.float(), darkest)
    fraction = images.float().clamp(a, b).sub_(a).div_((b - a).clamp_min(EPSILON))
    return fraction.mul_(brightest - darkest).add_(darkest).to(images.dtype)


def histogram_shift(
    images: Float[Tensor, "b c d h w"], curve: Float[Tensor, "b k"], points: Float[Tensor, " b"]
) -> Float[Tensor, "b c d h w"]:
    """A piecewise linear curve over each sample's range of intensities.

    curve: row b holds at 0..points[b]-1 the heights, in 0..1, at evenly spaced positions from darkest to brightest;
    later columns are unused.
    """
    low, high = (edge.float() for edge in intensity_range(images))
    last = per_sample(points, low) - 1.0
    position = (images.float() - low).div_((high - low).clamp_min(EPSILON)).mul_(last)
    below = torch.minimum(position.floor(), last - 1.0).clamp_min_(0.0)
    flat = below.long().flatten(1)
    lower, upper = curve.gather(1, flat), curve.gather(1, flat + 1)
    height = torch.lerp(lower, upper, (position - below).flatten(1)).view_as(position)
    return height.mul_(high - low).add_(low).to(images.dtype)


def intensity_range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each sample, (B, 1, 1, 1, 1)."""
    # Four times as fast as torch.aminmax with a dimension, on a CPU.
    return images.amin(dim=(1, 2, 3, 4), keepdim=True), images.amax(dim=(1, 2, 3, 4), keepdim=True)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1, 1) in the type of `like`."""
    return values.to(like.dtype).view(-1, 1, 1, 1, 1)
