"""The convolutional half of MONAI's UNETR, for tokens of any power of two of voxels."""

from typing import Any

from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from torch import Tensor

from medssl.encoders.encoder import Decoder

NORM = "instance"


class UNETRDecoder(Decoder):
    """Reads the image and each token map, enlarges the deepest one step by step and joins the others.

    steps: how often a token is halved until it is a voxel, and how many token maps there are. With 4 this is UNETR:
    `encoder1` reads the image, `encoder2` to `encoder4` the first three maps, `decoder5` to `decoder2` go up.
    """

    def __init__(self, in_channels: int, out_channels: int, *, hidden_size: int, feature_size: int, steps: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.steps = steps
        sizes: dict[str, Any] = {"spatial_dims": 3, "kernel_size": 3, "norm_name": NORM, "res_block": True}
        widths = [feature_size * 2**level for level in range(steps)]
        self.encoder1 = UnetrBasicBlock(in_channels=in_channels, out_channels=widths[0], stride=1, **sizes)
        for level in range(1, steps):
            block = UnetrPrUpBlock(
                in_channels=hidden_size,
                out_channels=widths[level],
                num_layer=steps - 1 - level,
                stride=1,
                upsample_kernel_size=2,
                conv_block=True,
                **sizes,
            )
            self.add_module(f"encoder{level + 1}", block)
        for level, inputs in reversed(list(enumerate([*widths[1:], hidden_size]))):
            up = UnetrUpBlock(in_channels=inputs, out_channels=widths[level], upsample_kernel_size=2, **sizes)
            self.add_module(f"decoder{level + 2}", up)
        self.out = UnetOutBlock(spatial_dims=3, in_channels=widths[0], out_channels=out_channels)

    def forward(self, pyramid: list[Tensor], image: Tensor) -> Tensor:
        """(B, out_channels, D, H, W) from one map of tokens per step; `image` is the encoder's input."""
        joined = [self.encoder1(image)]
        joined += [self.get_submodule(f"encoder{level}")(pyramid[level - 2]) for level in range(2, self.steps + 1)]
        features = pyramid[-1]
        for level in range(self.steps - 1, -1, -1):
            features = self.get_submodule(f"decoder{level + 2}")(features, joined[level])
        out: Tensor = self.out(features)
        return out
