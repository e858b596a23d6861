"""Heads that tasks put on an encoder's feature pyramid."""

import torch
from medssl.encoders.encoder import Encoder
from torch import Tensor, nn
from torch.nn import functional as F


class VoxelHead(nn.Module):
    """One map at the resolution of the image, straight from the pyramid; a decoder for those who need no U-Net.

    Each level is projected to `width` features, the coarser ones are enlarged and added to the finer (feature pyramid,
    Lin et al. 2017, arXiv 1612.03144), and the sum is projected to `out_channels`. Nothing of the image is read but its
    features, so whatever was hidden from the encoder stays hidden from the head.
    """

    def __init__(self, encoder: Encoder, out_channels: int = 1, *, width: int = 32) -> None:
        super().__init__()
        self.stride = encoder.strides[0]
        self.lateral = nn.ModuleList(nn.Conv3d(channels, width, 1) for channels in encoder.channels)
        self.smooth = nn.Conv3d(width, width, 3, padding=1)
        self.out = nn.Conv3d(width, out_channels, 1)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """(B, out_channels, D, H, W) from one (B, channels[i], D/stride, ...) per level, finest first."""
        merged = self.lateral[-1](pyramid[-1])
        for project, level in zip(reversed(self.lateral[:-1]), reversed(pyramid[:-1]), strict=True):
            merged = project(level) + _resized(merged, level.shape[2:])
        full = [edge * stride for edge, stride in zip(merged.shape[2:], self.stride, strict=True)]
        out: Tensor = self.out(_resized(F.leaky_relu(self.smooth(merged)), full))
        return out


class VectorHead(nn.Module):
    """`outputs` numbers per image: the deepest features, averaged over space, through one hidden layer.

    Without batch normalisation, which at 2-8 volumes per device depends on the company a volume is in. For classes, and
    for any other small vector that the task predicts from a whole patch.
    """

    def __init__(self, encoder: Encoder, outputs: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(encoder.channels[-1], hidden), nn.GELU(), nn.Linear(hidden, outputs))

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """(B, outputs)."""
        out: Tensor = self.layers(pooled(pyramid))
        return out


def pooled(pyramid: list[Tensor]) -> Tensor:
    """(B, channels[-1]): the deepest features averaged over space."""
    return pyramid[-1].mean(dim=(2, 3, 4))


def _resized(features: Tensor, size: torch.Size | list[int]) -> Tensor:
    if features.shape[2:] == torch.Size(size):
        return features
    return F.interpolate(features, size=list(size), mode="trilinear", align_corners=False)
