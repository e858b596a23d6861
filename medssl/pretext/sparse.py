"""Sparse masking: a convolutional encoder that sees only the visible part of an image.

Zeros in place of hidden voxels are still an input: convolutions carry them into visible cells, and normalisation counts
them. Here every convolution's output is set back to zero where hidden, and normalisation takes its moments over visible
cells, which equals a sparse convolution (Tian et al. 2023, SparK, arXiv 2301.03580, section 3.2). Forward hooks replace
the outputs of the encoder's modules for one forward pass; the modules themselves do not change.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.errors import ConfigError

UNSUITED = (nn.Linear, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
Hook = Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]


@runtime_checkable
class DropsTokens(Protocol):
    """An encoder of tokens (a ViT) that can leave the hidden ones out."""

    def encode_visible(self, image: Tensor, hidden: Tensor) -> list[Tensor]:
        """The pyramid of an image from its visible tokens; the task fills the cells of the hidden ones.

        Args:
            image: (B, C, D, H, W).
            hidden: (B, 1, D, H, W) bool. A token with a hidden voxel is left out; samples may hide different numbers.
        """


def visible_at(visible: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, 1, *size) bool: cells of which every voxel is visible; `visible` (B, 1, D, H, W)."""
    depth, height, width = size
    return F.adaptive_max_pool3d((~visible).float(), (depth, height, width)) == 0


def check_convolutional(encoder: Encoder) -> None:
    """Raise ConfigError where `encoder` mixes voxels by other means than convolutions."""
    for name, module in encoder.named_modules():
        if isinstance(module, UNSUITED):
            raise ConfigError(
                f"task.masking is 'sparse', but the encoder has {type(module).__name__} at '{name}', which "
                "is not a convolution over visible voxels. Use --set task.masking=input, or an encoder such as dynunet."
            )


def encode_sparsely(encoder: Encoder, image: Tensor, visible: Tensor) -> list[Tensor]:
    """The pyramid of the visible part of an image, zero in every cell that is not entirely visible.

    Args:
        encoder: of convolutions, see `check_convolutional`.
        image: (B, C, D, H, W).
        visible: (B, 1, D, H, W) bool.
    """
    with _only_visible(encoder, visible):
        pyramid = encoder(image * visible.to(image.dtype))
    return [level * visible_at(visible, tuple(level.shape[2:])).to(level.dtype) for level in pyramid]


def filled(pyramid: list[Tensor], visible: Tensor, tokens: nn.ParameterList) -> list[Tensor]:
    """The pyramid with a learned vector (channels,) per level in the cells that are not entirely visible."""
    out = []
    for level, token in zip(pyramid, tokens, strict=True):
        visible_cells = visible_at(visible, tuple(level.shape[2:]))
        out.append(torch.where(visible_cells, level, token.to(level.dtype).view(1, -1, 1, 1, 1)))
    return out


@contextmanager
def _only_visible(encoder: Encoder, visible: Tensor) -> Iterator[None]:
    # One mask per resolution. A cell counts as visible only if all its voxels are: a partly hidden cell would leak the
    # zeros, and SparK's masks are aligned with the coarsest cells so that there is none.
    masks: dict[tuple[int, ...], Tensor] = {}

    def mask(features: Tensor) -> Tensor:
        size = tuple(features.shape[2:])
        if size not in masks:
            masks[size] = visible_at(visible, size)
        return masks[size].to(features.dtype)

    def convolved(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * mask(output)

    def normalised(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        groups = module.num_groups if isinstance(module, nn.GroupNorm) else output.shape[1]
        return _norm_over_visible(module, inputs[0], mask(output), groups=groups).to(output.dtype)

    hooks: list[tuple[type[nn.Module], Hook]] = [
        (nn.Conv3d, convolved),
        (nn.InstanceNorm3d, normalised),
        (nn.GroupNorm, normalised),
    ]
    handles = [
        module.register_forward_hook(hook)
        for module in encoder.modules()
        for kind, hook in hooks
        if isinstance(module, kind)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _norm_over_visible(module: Any, features: Tensor, mask: Tensor, *, groups: int) -> Tensor:
    """Instance or group normalisation with mean and biased variance over visible cells; zero elsewhere."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    grouped = wide.reshape(len(wide), groups, -1, *wide.shape[2:])  # (B, groups, C / groups, D, H, W)
    weight = mask.to(grouped.dtype).unsqueeze(1)  # (B, 1, 1, D, H, W)
    count = (weight.sum(dim=(2, 3, 4, 5), keepdim=True) * grouped.shape[2]).clamp_min(1.0)
    mean = (grouped * weight).sum(dim=(2, 3, 4, 5), keepdim=True) / count
    variance = ((grouped - mean).square() * weight).sum(dim=(2, 3, 4, 5), keepdim=True) / count
    out = ((grouped - mean) / (variance + module.eps).sqrt()).flatten(1, 2)
    if module.weight is not None:
        out = out * module.weight.view(1, -1, 1, 1, 1) + module.bias.view(1, -1, 1, 1, 1)
    scaled: Tensor = out * mask
    return scaled
