"""An encoder that is built in a millisecond, so that a task can be tried out without MONAI."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import Decoder, Encoder, EncoderDescription


class TinyEncoder(Encoder):
    """Three levels with strides 1, 2 and 4: a convolution, instance normalisation and a leaky ReLU each."""

    def __init__(self, *, in_channels: int = 1, channels: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        self.description = EncoderDescription(name="tiny", in_channels=in_channels)
        self.channels = channels
        self.strides = ((1, 1, 1), (2, 2, 2), (4, 4, 4))
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(inputs, outputs, 3, stride=1 if level == 0 else 2, padding=1),
                nn.InstanceNorm3d(outputs, affine=True),
                nn.LeakyReLU(0.01),
            )
            for level, (inputs, outputs) in enumerate(pairwise((in_channels, *channels)))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) to three levels, finest first."""
        pyramid = []
        for level in self.levels:
            image = level(image)
            pyramid.append(image)
        return pyramid

    def make_decoder(self, out_channels: int) -> Decoder:
        """A small U-shaped decoder."""
        return TinyDecoder(self.channels, out_channels)


class TinyDecoder(Decoder):
    """Enlarges level by level and joins the finer one."""

    def __init__(self, channels: tuple[int, ...], out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.joins = nn.ModuleList(nn.Conv3d(fine + coarse, fine, 3, padding=1) for fine, coarse in pairwise(channels))
        self.out = nn.Conv3d(channels[0], out_channels, 1)

    def forward(self, pyramid: list[Tensor], image: Tensor) -> Tensor:
        """(B, out_channels, D, H, W)."""
        features = pyramid[-1]
        for join, finer in zip(reversed(self.joins), reversed(pyramid[:-1]), strict=True):
            enlarged = F.interpolate(features, size=finer.shape[2:], mode="trilinear", align_corners=False)
            features = F.leaky_relu(join(torch.cat([finer, enlarged], dim=1)), 0.01)
        out: Tensor = self.out(features)
        return out
