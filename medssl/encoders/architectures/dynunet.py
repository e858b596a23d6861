"""MONAI's DynUNet, split into encoder and decoder: tensor for tensor nnU-Net's plain network.

`res_block=False` and `trans_bias=True` are fixed, because with them one pretraining serves MONAI and nnU-Net users
(design, decision 11). The parts are built from MONAI's own blocks, so keys are `input_block.* downsamples.*
bottleneck.*` and `upsamples.* output_block.*`, without the `skip_layers.*` aliases that MONAI adds to a state dict.
"""

from collections.abc import Mapping
from typing import Any

from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock, UnetUpBlock
from monai.networks.nets import DynUNet
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from medssl.encoders.encoder import Decoder, EncoderDescription, MonaiTarget
from medssl.encoders.monai_encoder import MonaiEncoder
from medssl.encoders.sizing import Preset
from medssl.encoders.topology import MIN_LEVELS, plan_levels
from medssl.errors import ConfigError
from medssl.shapes import Shape3D, Spacing3D

NORM = ("INSTANCE", {"affine": True})

# 'large' is nnU-Net's own 3d_fullres network for a patch of 128 or more.
FILTERS: Mapping[Preset, tuple[int, ...]] = {
    "tiny": (8, 16, 32, 64),
    "small": (16, 32, 64, 128),
    "base": (32, 64, 128, 256, 320),
    "large": (32, 64, 128, 256, 320, 320),
}


class DynUNetOptions(BaseModel):
    """Sizes of a DynUNet. Names are MONAI's; one entry per level, finest first; triples are (D, H, W)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    filters: tuple[int, ...] = Field(description="features per level", min_length=MIN_LEVELS, max_length=9)
    kernel_size: tuple[Shape3D, ...] = Field(description="edges of the convolutions in voxels, odd, at most 7")
    strides: tuple[Shape3D, ...] = Field(description="stride into each level; the first is 1, 1, 1; at most 4")
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="fraction of features dropped after each convolution"
    )

    @model_validator(mode="after")
    def _levels_agree(self) -> "DynUNetOptions":
        levels = {"filters": len(self.filters), "kernel_size": len(self.kernel_size), "strides": len(self.strides)}
        if len(set(levels.values())) > 1:
            raise ValueError(f"entries per level differ: {levels}. Give each as many, or leave two of them at 'auto'")
        if self.strides[0] != (1, 1, 1):
            raise ValueError(
                f"strides begin with {self.strides[0]}; the first level has the resolution of the image: (1, 1, 1)"
            )
        if any(not 1 <= step <= 4 for stride in self.strides for step in stride):
            raise ValueError("strides lie between 1 and 4")
        if any(edge not in (1, 3, 5, 7) for kernel in self.kernel_size for edge in kernel):
            raise ValueError("edges of kernel_size are 1, 3, 5 or 7")
        if any(
            step > edge
            for pair in zip(self.strides, self.kernel_size, strict=True)
            for step, edge in zip(*pair, strict=True)
            if step > 2
        ):
            raise ValueError("a stride above 2 needs a kernel at least as long, or voxels are skipped")
        if any(not 1 <= count <= 4096 for count in self.filters):
            raise ValueError("filters lie between 1 and 4096")
        return self


class DynUNetEncoder(MonaiEncoder[DynUNetOptions]):
    """The contracting half of a DynUNet. Pyramid: one map per level, the bottleneck last."""

    name = "dynunet"
    Options = DynUNetOptions
    monai_target = MonaiTarget(
        "monai.networks.nets.DynUNet",
        "$torch.nn.Sequential(@network_def.input_block, *@network_def.downsamples, @network_def.bottleneck)",
    )

    def __init__(self, description: EncoderDescription) -> None:
        super().__init__(description)
        options, in_channels = self.options, description.in_channels
        self.channels = options.filters
        self.strides = _cumulative(options.strides)
        levels = list(
            zip((in_channels, *options.filters), options.filters, options.kernel_size, options.strides, strict=False)
        )
        first, *middle, last = [_block(*level, dropout=options.dropout) for level in levels]
        self.input_block, self.downsamples, self.bottleneck = first, nn.ModuleList(middle), last
        self.apply(DynUNet.initialize_weights)

    @classmethod
    def resolve(
        cls, preset: Preset, options: Mapping[str, Any], *, patch: Shape3D, spacing_mm: Spacing3D | None
    ) -> tuple[dict[str, Any], list[str]]:
        """Options for a patch (D, H, W), `options` kept; and a reason for each that was chosen."""
        filters = tuple(options.get("filters", FILTERS[preset]))
        if "strides" in options:
            strides = tuple(options["strides"])
            chosen = {"filters": filters[: len(strides)], "kernel_size": ((3, 3, 3),) * len(strides)}
            return {**chosen, **options}, ["kernel_size is 3 on every axis, because strides were given"]
        topology = plan_levels(patch, spacing_mm=spacing_mm, max_levels=len(filters))
        levels = len(topology.strides)
        if "filters" in options and levels < len(filters):
            raise ConfigError(
                f"encoder.options.filters names {len(filters)} levels, but a patch of {list(patch)} voxels carries "
                f"{levels}. Give {levels} filters, or a larger patch."
            )
        chosen = {"filters": filters[:levels], "kernel_size": topology.kernel_size, "strides": topology.strides}
        reason = (
            f"{levels} levels with filters {list(filters[:levels])}: preset '{preset}' on a patch of {list(patch)} "
            f"voxels, which leaves {list(topology.smallest_edges_voxels)} at the bottom"
        )
        return {**chosen, **options}, [reason]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) to one map per level."""
        pyramid = [self.input_block(image)]
        for block in (*self.downsamples, self.bottleneck):
            pyramid.append(block(pyramid[-1]))
        return pyramid

    def make_decoder(self, out_channels: int) -> "DynUNetDecoder":
        """The expanding half, freshly initialised."""
        return DynUNetDecoder(self.options, out_channels)

    def monai_arguments(self, out_channels: int) -> dict[str, Any]:
        """Keyword arguments with which `monai.networks.nets.DynUNet` builds the same network; plain JSON types."""
        sizes = self.options.model_dump(mode="json")
        return {
            "spatial_dims": 3,
            "in_channels": self.description.in_channels,
            "out_channels": out_channels,
            "kernel_size": sizes["kernel_size"],
            "strides": sizes["strides"],
            "upsample_kernel_size": sizes["strides"][1:],
            "filters": sizes["filters"],
            "dropout": sizes["dropout"],
            "norm_name": list(NORM),
            "res_block": False,
            "trans_bias": True,
        }


class DynUNetDecoder(Decoder):
    """The expanding half of a DynUNet.

    Transposed convolution, concatenation with the skip, two convolutions; coarsest first.
    """

    def __init__(self, options: DynUNetOptions, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        steps = zip(
            options.filters[1:], options.filters[:-1], options.kernel_size[1:], options.strides[1:], strict=True
        )
        blocks = [_up_block(*step, dropout=options.dropout) for step in steps]
        self.upsamples = nn.ModuleList(reversed(blocks))
        self.output_block = UnetOutBlock(3, options.filters[0], out_channels, dropout=options.dropout)
        self.apply(DynUNet.initialize_weights)

    def forward(self, pyramid: list[Tensor], image: Tensor) -> Tensor:
        """(B, out_channels, D, H, W); the image is not read."""
        features = pyramid[-1]
        for block, skip in zip(self.upsamples, reversed(pyramid[:-1]), strict=True):
            features = block(features, skip)
        out: Tensor = self.output_block(features)
        return out


def _block(inputs: int, outputs: int, kernel: Shape3D, stride: Shape3D, *, dropout: float | None) -> nn.Module:
    return UnetBasicBlock(3, inputs, outputs, kernel, stride, NORM, dropout=dropout)  # type: ignore[no-any-return]


def _up_block(inputs: int, outputs: int, kernel: Shape3D, stride: Shape3D, *, dropout: float | None) -> nn.Module:
    return UnetUpBlock(3, inputs, outputs, kernel, stride, stride, NORM, dropout=dropout, trans_bias=True)  # type: ignore[no-any-return]


def _cumulative(strides: tuple[Shape3D, ...]) -> tuple[Shape3D, ...]:
    total, out = (1, 1, 1), []
    for d, h, w in strides:
        total = (total[0] * d, total[1] * h, total[2] * w)
        out.append(total)
    return tuple(out)
