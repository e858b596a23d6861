"""Heads that tasks put on an encoder's feature pyramid."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.pretext.projection import pooled_channels, pooled_levels
from medssl.shapes import Shape3D

POOLED_LEVELS = 2  # coarsest levels that describe an image as one vector


class VoxelHead(nn.Module):
    """One map at the resolution of the image, straight from the pyramid: a decoder without a U-Net.

    Each level is projected to `width` features, the coarser ones are enlarged and added to the finer (feature pyramid,
    Lin et al. 2017, arXiv 1612.03144), and the sum is projected to `out_channels`. The head reads the features alone,
    so whatever was hidden from the encoder stays hidden from the head.

    Args:
        encoder: whose pyramid it reads.
        out_channels: as many as the image has by default.
        width: features inside the head.
        level: of the pyramid whose resolution the map has; finer levels are averaged down to it. By default the map has
            the resolution of the image.
    """

    def __init__(
        self, encoder: Encoder, out_channels: int | None = None, *, width: int = 32, level: int | None = None
    ) -> None:
        super().__init__()
        out_channels = out_channels or encoder.description.in_channels
        self.level = level
        self.stride = encoder.strides[0] if level is None else (1, 1, 1)
        self.lateral = nn.ModuleList(nn.Conv3d(channels, width, 1) for channels in encoder.channels)
        self.smooth = nn.Conv3d(width, width, 3, padding=1)
        self.out = nn.Conv3d(width, out_channels, 1)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """(B, out_channels, D, H, W) from one (B, channels[i], D/stride, ...) per level, finest first."""
        merged = self.lateral[-1](pyramid[-1])
        for project, level in zip(reversed(self.lateral[:-1]), reversed(pyramid[:-1]), strict=True):
            merged = project(level) + _resized(merged, level.shape[2:])
        if self.level:
            depth, height, width = pyramid[self.level].shape[2:]
            merged = F.adaptive_avg_pool3d(merged, (depth, height, width))
        full = [edge * stride for edge, stride in zip(merged.shape[2:], self.stride, strict=True)]
        out: Tensor = self.out(_resized(F.leaky_relu(self.smooth(merged)), full))
        return out


class VectorHead(nn.Module):
    """`outputs` numbers per image: mean and maximum of the two deepest levels, through one hidden layer.

    For classes, and for any other small vector that a task predicts from a patch. The deepest mean alone is nearly the
    same for all images behind an instance norm, and rotations and orders of tiles were not learnt from it. Without
    batch normalisation, which at 2-8 volumes per device makes a volume's result depend on the others.

    Args:
        encoder: whose pyramid it reads.
        outputs: numbers to predict.
        hidden: width of the hidden layer.
        images: images of one sample that are concatenated before the hidden layer, such as the tiles of a jigsaw.
    """

    def __init__(self, encoder: Encoder, outputs: int, *, hidden: int = 256, images: int = 1) -> None:
        super().__init__()
        self.images = images
        inputs = pooled_channels(encoder, POOLED_LEVELS) * images
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """(B, outputs) from a pyramid of B * images images, those of one sample next to each other."""
        return self.predict(self.pool(pyramid))

    def pool(self, pyramid: list[Tensor]) -> Tensor:
        """(B * images, F): the features of each image as one vector."""
        return pooled_levels(pyramid, POOLED_LEVELS).to(pyramid[-1].dtype)

    def predict(self, features: Tensor) -> Tensor:
        """(B, outputs) from the vectors of `pool`, those of one sample next to each other."""
        out: Tensor = self.layers(features.reshape(len(features) // self.images, -1))
        return out


class LatentDecoder(nn.Module):
    """A volume from a map at the resolution of the encoder's deepest level, and from nothing else.

    The encoder's decoder reads every level, past any bottleneck; this one leaves no way around the latent map. It has
    no normalisation layers, which would remove the amplitude that is to be reconstructed.

    Args:
        encoder: whose strides it undoes.
        latent_channels: channels of the map.
        out_channels: channels of the volume.
        widest: largest number of features of a level.
    """

    def __init__(self, encoder: Encoder, latent_channels: int, out_channels: int = 1, *, widest: int = 128) -> None:
        super().__init__()
        widths = [min(widest, channels) for channels in encoder.channels]
        self.steps = _steps(encoder.strides)
        inputs = [latent_channels, *reversed(widths)]
        layers = [nn.Conv3d(a, b, 3, padding=1) for a, b in pairwise(inputs)]
        self.convolutions = nn.ModuleList(layers)
        self.out = nn.Conv3d(widths[0], out_channels, 3, padding=1)
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, a=0.01)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, out_channels, D, H, W) from (B, latent_channels, D/stride, H/stride, W/stride)."""
        features = latent
        for convolution, step in zip(self.convolutions, self.steps, strict=True):
            features = F.leaky_relu(convolution(features), 0.01)
            features = _resized(features, [edge * s for edge, s in zip(features.shape[2:], step, strict=True)])
        out: Tensor = self.out(features)
        return out


def pooled(pyramid: list[Tensor]) -> Tensor:
    """(B, channels[-1]): the deepest features averaged over space."""
    return pyramid[-1].mean(dim=(2, 3, 4))


def _steps(strides: tuple[Shape3D, ...]) -> list[tuple[int, ...]]:
    """How far each level is enlarged to the next finer one, deepest first, the finest to the image."""
    finer = [(1, 1, 1), *strides[:-1]]
    return [
        tuple(a // b for a, b in zip(*pair, strict=True)) for pair in reversed(list(zip(strides, finer, strict=True)))
    ]


def _resized(features: Tensor, size: torch.Size | list[int]) -> Tensor:
    if features.shape[2:] == torch.Size(size):
        return features
    return F.interpolate(features, size=list(size), mode="trilinear", align_corners=False)


def class_energies(logits: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) cross-entropy of the right class, and the mean of that of all wrong classes, the latter without gradient.

    Both are ln K for a head that gives the same answer for everything.

    Args:
        logits: (B, K).
        answer: (B,) the right classes.
    """
    surprise = -F.log_softmax(logits, dim=1)  # (B, K)
    right = surprise.gather(1, answer.unsqueeze(1)).squeeze(1)
    wrong = (surprise.sum(dim=1) - right) / (logits.shape[1] - 1)
    return right, wrong.detach()
