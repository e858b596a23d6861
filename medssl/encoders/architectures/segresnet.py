"""MONAI's SegResNet, split in two: encoder `convInit.* down_layers.*`, decoder `up_layers.* up_samples.* conv_final.*`.

A residual network with group normalisation (Myronenko 2018), which gives the same result at any batch size and patch
size.
"""

from collections.abc import Mapping
from typing import Any

from monai.networks.nets import SegResNet
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from medssl.encoders.encoder import Decoder, EncoderDescription, MonaiTarget
from medssl.encoders.monai_encoder import MonaiEncoder, network_arguments
from medssl.encoders.sizing import Preset
from medssl.encoders.topology import SMALLEST_EDGE_VOXELS
from medssl.errors import ConfigError
from medssl.shapes import Shape3D, Spacing3D

NORM_GROUPS = 8  # of MONAI's default group normalisation; features are a multiple of it

FEATURES: Mapping[Preset, int] = {"tiny": 8, "small": 16, "base": 32, "large": 32}
# 'base' is MONAI's default and the paper's; 'large' has the five levels of Auto3DSeg.
BLOCKS: Mapping[Preset, tuple[int, ...]] = {
    "tiny": (1, 1, 1, 1),
    "small": (1, 2, 2, 2),
    "base": (1, 2, 2, 4),
    "large": (1, 2, 2, 4, 4),
}


class SegResNetOptions(BaseModel):
    """Sizes of a SegResNet. Names are MONAI's. Features double and edges halve from level to level."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    init_filters: int = Field(
        description="features of the finest level, a multiple of 8", ge=NORM_GROUPS, le=512, multiple_of=NORM_GROUPS
    )
    blocks_down: tuple[int, ...] = Field(
        description="residual blocks per level of the encoder", min_length=2, max_length=7
    )
    blocks_up: tuple[int, ...] = Field(
        description="residual blocks per level of the decoder, coarsest first; one entry less"
    )
    dropout_prob: float | None = Field(
        default=None, ge=0, lt=1, description="fraction of features dropped after the first convolution"
    )

    @model_validator(mode="after")
    def _levels_agree(self) -> "SegResNetOptions":
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(
                f"blocks_up has {len(self.blocks_up)} entries; with {len(self.blocks_down)} in blocks_down it has one "
                "less"
            )
        if any(not 1 <= count <= 64 for count in (*self.blocks_down, *self.blocks_up)):
            raise ValueError("blocks per level lie between 1 and 64")
        return self


class SegResNetEncoder(MonaiEncoder[SegResNetOptions]):
    """The contracting half of a SegResNet. Pyramid: the output of each level, strides 1, 2, 4, ..."""

    name = "segresnet"
    Options = SegResNetOptions
    monai_target = MonaiTarget(
        "monai.networks.nets.SegResNet", "$torch.nn.Sequential(@network_def.convInit, *@network_def.down_layers)"
    )

    def __init__(self, description: EncoderDescription) -> None:
        super().__init__(description)
        options, in_channels = self.options, description.in_channels
        levels = range(len(options.blocks_down))
        self.channels = tuple(options.init_filters * 2**level for level in levels)
        self.strides = tuple((2**level, 2**level, 2**level) for level in levels)
        network = monai_network(options, in_channels, 1)
        self.convInit, self.down_layers = network.convInit, network.down_layers
        self.dropout = network.dropout if options.dropout_prob is not None else nn.Identity()

    @classmethod
    def resolve(
        cls, preset: Preset, options: Mapping[str, Any], *, patch: Shape3D, spacing_mm: Spacing3D | None
    ) -> tuple[dict[str, Any], list[str]]:
        """Options for a patch (D, H, W), `options` kept, and a reason for each that was chosen; spacing is not used."""
        halvings = 0
        while all(
            edge % 2 ** (halvings + 1) == 0 and edge >= SMALLEST_EDGE_VOXELS * 2 ** (halvings + 1) for edge in patch
        ):
            halvings += 1
        blocks = tuple(options.get("blocks_down", BLOCKS[preset]))
        if halvings == 0 or ("blocks_down" in options and len(blocks) > halvings + 1):
            raise ConfigError(
                f"encoder 'segresnet' halves every edge at each of its levels, and a patch of {list(patch)} voxels (D, "
                f"H, W) can be halved {halvings} time(s). Take edges that are multiples of 8 and at least 32, or fewer "
                "entries in blocks_down."
            )
        blocks = blocks[: halvings + 1]
        chosen = {"init_filters": FEATURES[preset], "blocks_down": blocks, "blocks_up": (1,) * (len(blocks) - 1)}
        size = f"{len(blocks)} levels from {FEATURES[preset]} features"
        return {**chosen, **options}, [f"{size}: preset '{preset}' on a patch of {list(patch)} voxels"]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) to one map per level."""
        features = self.dropout(self.convInit(image))
        pyramid = []
        for level in self.down_layers:
            features = level(features)
            pyramid.append(features)
        return pyramid

    def make_decoder(self, out_channels: int) -> "SegResNetDecoder":
        """The expanding half, freshly initialised."""
        return SegResNetDecoder(self.options, out_channels)


class SegResNetDecoder(Decoder):
    """The expanding half of a SegResNet.

    1x1x1 convolution, linear upsampling, the skip added, residual blocks; coarsest first.
    """

    def __init__(self, options: SegResNetOptions, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        network = monai_network(options, 1, out_channels)
        self.up_layers, self.up_samples, self.conv_final = network.up_layers, network.up_samples, network.conv_final

    def forward(self, pyramid: list[Tensor], image: Tensor) -> Tensor:
        """(B, out_channels, D, H, W); the image is not read."""
        features = pyramid[-1]
        for up, level, skip in zip(self.up_samples, self.up_layers, reversed(pyramid[:-1]), strict=True):
            features = level(up(features) + skip)
        out: Tensor = self.conv_final(features)
        return out


def monai_network(options: SegResNetOptions, in_channels: int, out_channels: int) -> Any:
    """The same network as MONAI builds it, freshly initialised."""
    return SegResNet(**network_arguments(options, in_channels, out_channels))
