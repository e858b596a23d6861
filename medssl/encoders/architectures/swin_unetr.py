"""MONAI's Swin UNETR, split into the Swin transformer (`swinViT.*`) and the convolutional rest.

The decoder reads the image again (`encoder1.*`), as in the paper (Hatamizadeh et al. 2022), so only the transformer is
the encoder.
"""

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import SwinUNETR
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.overrides import TorchFunctionMode

from medssl.encoders.encoder import Decoder, EncoderDescription, MonaiTarget
from medssl.encoders.monai_encoder import MonaiEncoder, network_arguments
from medssl.encoders.sizing import Preset
from medssl.errors import ConfigError
from medssl.shapes import Shape3D, Spacing3D

LEVELS = 5
COARSEST_STRIDE = 32

# 'base' is the published network for CT (feature size 48); 'large' doubles its width, as VoCo-L does.
SIZES: Mapping[Preset, dict[str, Any]] = {
    "tiny": {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 4},
    "small": {"feature_size": 24, "depths": (2, 2, 2, 2), "num_heads": (3, 6, 12, 24), "window_size": 7},
    "base": {"feature_size": 48, "depths": (2, 2, 2, 2), "num_heads": (3, 6, 12, 24), "window_size": 7},
    "large": {"feature_size": 96, "depths": (2, 2, 2, 2), "num_heads": (3, 6, 12, 24), "window_size": 7},
}


class SwinUNETROptions(BaseModel):
    """Sizes of a Swin UNETR. Names are MONAI's. Features double and edges halve from level to level."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    feature_size: int = Field(
        description="features of the finest level, a multiple of 12", ge=12, le=768, multiple_of=12
    )
    depths: tuple[int, int, int, int] = Field(description="transformer blocks per level")
    num_heads: tuple[int, int, int, int] = Field(description="attention heads per level; they divide its features")
    window_size: int = Field(description="edge of an attention window in tokens of 2 voxels", ge=2, le=16)
    drop_rate: float = Field(default=0.0, ge=0, lt=1, description="fraction of features dropped in the transformer")
    dropout_path_rate: float = Field(
        default=0.0, ge=0, lt=1, description="fraction of residual branches dropped at the last block"
    )
    use_v2: bool = Field(default=False, description="a residual convolution block before each level (SwinUNETR-V2)")
    use_checkpoint: bool = Field(
        default=False, description="recompute activations in the backward pass: less memory, a third slower"
    )

    @model_validator(mode="after")
    def _heads_divide_features(self) -> "SwinUNETROptions":
        if any(not 1 <= depth <= 48 for depth in self.depths):
            raise ValueError("depths lie between 1 and 48")
        for level, heads in enumerate(self.num_heads):
            if heads < 1 or self.feature_size * 2**level % heads:
                raise ValueError(
                    f"num_heads[{level}] = {heads} does not divide the {self.feature_size * 2**level} features of that "
                    "level"
                )
        return self


class SwinUNETREncoder(MonaiEncoder[SwinUNETROptions]):
    """The Swin transformer. Pyramid: the patch embedding and the output of each level, strides 2, 4, 8, 16, 32."""

    name = "swin-unetr"
    Options = SwinUNETROptions
    monai_target = MonaiTarget("monai.networks.nets.SwinUNETR", "$lambda image: @network_def.swinViT(image)[-1]")

    def __init__(self, description: EncoderDescription) -> None:
        super().__init__(description)
        options, in_channels = self.options, description.in_channels
        self.channels = tuple(options.feature_size * 2**level for level in range(LEVELS))
        self.strides = tuple((2**level, 2**level, 2**level) for level in range(1, LEVELS + 1))
        self.swinViT = monai_network(options, in_channels, 1).swinViT

    @classmethod
    def resolve(
        cls, preset: Preset, options: Mapping[str, Any], *, patch: Shape3D, spacing_mm: Spacing3D | None
    ) -> tuple[dict[str, Any], list[str]]:
        """Options of the preset, `options` kept.

        Raises ConfigError for a patch (D, H, W) that the network cannot take.
        """
        fits = [max(COARSEST_STRIDE, round(edge / COARSEST_STRIDE) * COARSEST_STRIDE) for edge in patch]
        if list(patch) == fits == [COARSEST_STRIDE] * 3:
            raise ConfigError(
                f"a patch of {list(patch)} voxels (D, H, W) leaves one voxel at the coarsest level of encoder "
                "'swin-unetr'. Take 64 voxels along at least one axis."
            )
        if list(patch) != fits:
            raise ConfigError(
                f"a patch of {list(patch)} voxels (D, H, W) does not fit encoder 'swin-unetr', whose edges are "
                f"multiples of {COARSEST_STRIDE}. Set patch to {fits}, or take encoder 'dynunet'."
            )
        return {**SIZES[preset], **options}, [f"feature size {SIZES[preset]['feature_size']}: preset '{preset}'"]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) to one map per level, each normalised over its features."""
        pyramid: list[Tensor] = self.swinViT(image, True)
        return pyramid

    def make_decoder(self, out_channels: int) -> "SwinUNETRDecoder":
        """The convolutional part, freshly initialised."""
        return SwinUNETRDecoder(self.options, self.description.in_channels, out_channels)


class SwinUNETRDecoder(Decoder):
    """All of Swin UNETR but the transformer: residual blocks on image and skips, and the expanding half."""

    def __init__(self, options: SwinUNETROptions, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        network = monai_network(options, in_channels, out_channels)
        self.encoder1, self.encoder2, self.encoder3 = network.encoder1, network.encoder2, network.encoder3
        self.encoder4, self.encoder10 = network.encoder4, network.encoder10
        self.decoder5, self.decoder4, self.decoder3 = network.decoder5, network.decoder4, network.decoder3
        self.decoder2, self.decoder1, self.out = network.decoder2, network.decoder1, network.out

    def forward(self, pyramid: list[Tensor], image: Tensor) -> Tensor:
        """(B, out_channels, D, H, W); `image` is the encoder's input."""
        at_2, at_4, at_8, at_16, at_32 = pyramid
        features = self.decoder5(self.encoder10(at_32), at_16)
        features = self.decoder4(features, self.encoder4(at_8))
        features = self.decoder3(features, self.encoder3(at_4))
        features = self.decoder2(features, self.encoder2(at_2))
        out: Tensor = self.out(self.decoder1(features, self.encoder1(image)))
        return out


def monai_network(options: SwinUNETROptions, in_channels: int, out_channels: int) -> Any:
    """The same network as MONAI builds it, freshly initialised."""
    # MONAI reads its stochastic-depth rates from a tensor, which the meta device (shapes only) cannot do.
    with _LinspaceOnCpu():
        return SwinUNETR(**network_arguments(options, in_channels, out_channels))


class _LinspaceOnCpu(TorchFunctionMode):
    """Makes torch.linspace allocate on the CPU, whatever the default device is."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        device = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **(kwargs or {}), **device)
