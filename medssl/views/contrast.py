"""Changes of intensity voxel by voxel, with one set of parameters per sample. Nothing is written to the input.

images: (B, C, D, H, W). Parameters: (B,) tensors on the same device.
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
    return torch.addcmul(_per_sample(shift, images), images, _per_sample(factor, images))


def stretch_contrast(images: Float[Tensor, "b c d h w"], factor: Float[Tensor, " b"]) -> Float[Tensor, "b c d h w"]:
    """Distance to the mean of each sample and channel times `factor`, kept within the darkest and brightest value
    before.
    """
    mean = images.mean(dim=(2, 3, 4), keepdim=True, dtype=torch.float32).to(images.dtype)
    low, high = _range(images)
    return ((images - mean).mul_(_per_sample(factor, images)).add_(mean)).clamp_(low, high)


def gamma(
    images: Float[Tensor, "b c d h w"], exponent: Float[Tensor, " b"], *, invert: bool = False
) -> Float[Tensor, "b c d h w"]:
    """((v - low) / range) ** exponent * range + low, with low and range of each sample and channel.

    invert: of the negative image.
    """
    if invert:
        return gamma(-images, exponent).neg_()
    low, high = _range(images)
    extent = high - low
    # fp16 and bf16 cannot hold the powers of small shares: the arithmetic is float32 throughout.
    share = ((images - low).float() / (extent.float() + EPSILON)).clamp_(0.0, 1.0)
    share.pow_(_per_sample(exponent, share))
    return share.mul_(extent.float()).add_(low.float()).to(images.dtype)


def _range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each sample and channel, (B, C, 1, 1, 1)."""
    low, high = torch.aminmax(images.flatten(2), dim=2)
    return low[..., None, None, None], high[..., None, None, None]


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1, 1) in the type of `like`."""
    return values.to(like.dtype).view(-1, 1, 1, 1, 1)
