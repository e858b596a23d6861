"""A plain vision transformer over cubes of voxels (Dosovitskiy et al. 2020, arXiv 2010.11929), of MONAI's blocks.

With the decoder of UNETR (Hatamizadeh et al. 2022, arXiv 2103.10504) it segments. Parameter names are those of MONAI's
UNETR, and with tokens of 16 voxels and 12 layers the two together are that network. Unlike MONAI's it takes images of
any size, and can leave hidden tokens out.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from einops import rearrange
from monai.networks.nets import ViT
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import EncoderDescription, MonaiTarget
from medssl.encoders.monai_encoder import MonaiEncoder
from medssl.encoders.sizing import Preset
from medssl.encoders.unetr import UNETRDecoder
from medssl.errors import ConfigError
from medssl.shapes import Shape3D, Spacing3D

TOKEN_EDGES = (16, 8, 4)
UNETR_TOKEN, UNETR_LAYERS = 16, 12
# Fewer than 6 tokens along an edge leave little to attend to: a patch of 96 with the published tokens of 16 has 6.
MIN_TOKENS = 6**3

# 'base' is the published ViT-B, 'small' ViT-S; 'large' has ViT-L's depth, its width made a multiple of 6.
SIZES: Mapping[Preset, dict[str, int]] = {
    "tiny": {"hidden_size": 96, "mlp_dim": 384, "num_layers": 12, "num_heads": 3, "feature_size": 8},
    "small": {"hidden_size": 384, "mlp_dim": 1536, "num_layers": 12, "num_heads": 6, "feature_size": 16},
    "base": {"hidden_size": 768, "mlp_dim": 3072, "num_layers": 12, "num_heads": 12, "feature_size": 16},
    "large": {"hidden_size": 1056, "mlp_dim": 4224, "num_layers": 24, "num_heads": 16, "feature_size": 32},
}


class ViTOptions(BaseModel):
    """Sizes of a ViT and of the decoder on top of it. Names are MONAI's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    img_size: Shape3D = Field(
        description="patch (D, H, W) in voxels for which MONAI's network is built; this one takes others too"
    )
    patch_size: Literal[4, 8, 16] = Field(description="edge of a token in voxels")
    hidden_size: int = Field(description="features of a token, a multiple of 6 (sine and cosine of 3 axes)", ge=6)
    mlp_dim: int = Field(description="width of the hidden layer of each block", ge=1, le=65536)
    num_layers: int = Field(description="transformer blocks", ge=4, le=48)
    num_heads: int = Field(description="attention heads; they divide hidden_size", ge=1)
    feature_size: int = Field(description="features of the decoder's finest level", ge=1, le=512)
    dropout_rate: float = Field(default=0.0, ge=0, lt=1, description="fraction of features dropped in the transformer")

    @model_validator(mode="after")
    def _sizes_agree(self) -> "ViTOptions":
        if self.hidden_size % 6 or self.hidden_size > 8192:
            raise ValueError(f"hidden_size = {self.hidden_size} is not a multiple of 6 up to 8192")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads = {self.num_heads} does not divide hidden_size = {self.hidden_size}")
        if any(edge % self.patch_size or not 0 < edge <= 4096 for edge in self.img_size):
            raise ValueError(f"img_size = {list(self.img_size)} is not made of tokens of {self.patch_size} voxels")
        return self


class ViTEncoder(MonaiEncoder[ViTOptions]):
    """The transformer. Pyramid: token maps after a quarter, a half, ... of the blocks, all at the stride of a token.

    There are as many maps as UNETR's decoder has steps from tokens to voxels; the last one is normalised.
    """

    name = "vit"
    Options = ViTOptions
    monai_target = MonaiTarget(
        "monai.networks.nets.UNETR", "$lambda image: @network_def.proj_feat(@network_def.vit(image)[0])"
    )

    def __init__(self, description: EncoderDescription) -> None:
        super().__init__(description)
        options, in_channels = self.options, description.in_channels
        edge = options.patch_size
        levels = edge.bit_length() - 1
        self.channels = (options.hidden_size,) * levels
        self.strides = ((edge, edge, edge),) * levels
        # UNETR's skips of 12 blocks are the outputs of blocks 3, 6 and 9, counted from 0
        self.skips = tuple(options.num_layers * level // levels for level in range(1, levels))
        self.vit = _transformer(options, in_channels)

    @classmethod
    def resolve(
        cls, preset: Preset, options: Mapping[str, Any], *, patch: Shape3D, spacing_mm: Spacing3D | None
    ) -> tuple[dict[str, Any], list[str]]:
        """Options for a patch (D, H, W), `options` kept, and the reasons. Spacing is not used.

        Raises ConfigError for a patch that tokens do not fill.
        """
        fitting = [edge for edge in TOKEN_EDGES if not any(length % edge for length in patch)]
        if not fitting:
            near = [max(8, round(length / 8) * 8) for length in patch]
            raise ConfigError(
                f"a patch of {list(patch)} voxels (D, H, W) is not made of tokens of 4, 8 or 16 voxels, which encoder "
                f"'vit' needs. Set patch to {near}, or take encoder 'dynunet'."
            )
        edge = next((edge for edge in fitting if math.prod(patch) >= MIN_TOKENS * edge**3), fitting[-1])
        edge = options.get("patch_size", edge)
        reason = (
            f"{math.prod(length // edge for length in patch)} tokens of {edge} voxels in a patch of {list(patch)}, "
            f"{SIZES[preset]['hidden_size']} features each: preset '{preset}'"
        )
        return {"img_size": patch, "patch_size": edge, **SIZES[preset], **options}, [reason]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) to one map (B, hidden_size, D / patch_size, ...) per level."""
        tokens, grid = self._embedded(image)
        return [_as_map(level, grid) for level in self._attended(tokens, None)]

    def encode_visible(self, image: Tensor, hidden: Tensor) -> list[Tensor]:
        """The pyramid from tokens that hold no voxel of `hidden` (B, 1, D, H, W) bool; zeros in the other cells.

        Hidden tokens are left out before the first block, so that they cost nothing and nothing depends on them. Where
        samples hide different numbers, the shorter rows are filled up with tokens that no other attends to.
        """
        tokens, grid = self._embedded(image)
        covered = F.max_pool3d(hidden.float(), self.options.patch_size).flatten(1) > 0  # (B, N)
        visible = covered.logical_not()
        # The one number that the host must know: how many tokens there are to compute.
        longest = int(visible.sum(dim=1).max().clamp(min=1))
        order = torch.sort(covered.to(torch.uint8), dim=1, stable=True).indices[:, :longest]  # visible ones first
        rows = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))  # (B, longest, F)
        present = visible.gather(1, order)
        levels = self._attended(rows, present)
        cells = order[..., None].expand_as(rows)
        return [
            _as_map(torch.zeros_like(tokens).scatter(1, cells, (level * present[..., None]).to(tokens.dtype)), grid)
            for level in levels
        ]

    def make_decoder(self, out_channels: int) -> UNETRDecoder:
        """UNETR's convolutional decoder, freshly initialised."""
        return UNETRDecoder(
            self.description.in_channels,
            out_channels,
            hidden_size=self.options.hidden_size,
            feature_size=self.options.feature_size,
            steps=len(self.channels),
        )

    def monai_arguments(self, out_channels: int) -> dict[str, Any]:
        """Keyword arguments with which `monai.networks.nets.UNETR` builds the same network; plain JSON types."""
        arguments = super().monai_arguments(out_channels)
        return {name: value for name, value in arguments.items() if name not in ("patch_size", "num_layers")}

    @property
    def unlike_monai(self) -> str | None:
        """What MONAI's UNETR does not have, in words; None where it is the same network."""
        options = self.options
        if options.patch_size == UNETR_TOKEN and options.num_layers == UNETR_LAYERS:
            return None
        return (
            f"MONAI's UNETR has tokens of {UNETR_TOKEN} voxels and {UNETR_LAYERS} blocks, and this 'vit' has tokens of "
            f"{options.patch_size} voxels and {options.num_layers} blocks"
        )

    @property
    def monai_size(self) -> Shape3D:
        """(D, H, W) voxels: UNETR has one grid of tokens."""
        return self.options.img_size

    def _embedded(self, image: Tensor) -> tuple[Tensor, Shape3D]:
        """(B, N, F) tokens with their places, and the grid (d, h, w) of tokens."""
        embedding = self.vit.patch_embedding
        cells = embedding.patch_embeddings(image)  # (B, F, d, h, w)
        d, h, w = cells.shape[2:]
        tokens = cells.flatten(2).transpose(1, 2)
        positions = embedding.position_embeddings
        if (d, h, w) != tuple(edge // self.options.patch_size for edge in self.options.img_size):
            positions = positions_of_tokens((d, h, w), self.options.hidden_size).to(positions)
        return embedding.dropout(tokens + positions), (d, h, w)

    def _attended(self, tokens: Tensor, present: Tensor | None) -> list[Tensor]:
        """(B, N, F) per level. present: (B, N) tokens that may be attended to, None for all of them."""
        levels = []
        mask = present
        if present is not None and self.options.dropout_rate == 0:
            mask = present[:, None, None, :]  # as torch's own attention takes it
        for index, block in enumerate(self.vit.blocks):
            tokens = block(tokens, attn_mask=mask)
            if index in self.skips:
                levels.append(tokens)
        return [*levels, self.vit.norm(tokens)]


def positions_of_tokens(grid: Shape3D, features: int) -> Tensor:
    """(1, d * h * w, features): sine and cosine of each token's position along H, D, W at `features` / 6 wavelengths.

    Vaswani et al. 2017 (arXiv 1706.03762, section 3.5) for three axes; the order is that of MONAI's "sincos".
    """
    d, h, w = torch.meshgrid(*(torch.arange(edge, dtype=torch.float32) for edge in grid), indexing="ij")
    count = features // 6
    rates = 10000.0 ** -(torch.arange(count, dtype=torch.float32) / count)
    angles = [axis.flatten()[:, None] * rates for axis in (h, d, w)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)[None]


def _as_map(tokens: Tensor, grid: Shape3D) -> Tensor:
    features: Tensor = rearrange(tokens, "b (d h w) f -> b f d h w", d=grid[0], h=grid[1], w=grid[2]).contiguous()
    return features


def _transformer(options: ViTOptions, in_channels: int) -> Any:
    """MONAI's ViT with positions that are not trained, and weights drawn as in He et al. 2022 (MAE, reference code)."""
    sizes = options.model_dump(exclude={"feature_size"})
    vit = ViT(in_channels=in_channels, **sizes)
    fixed = positions_of_tokens(_grid(options), options.hidden_size)
    vit.patch_embedding.position_embeddings = nn.Parameter(fixed, requires_grad=False)
    projection = vit.patch_embedding.patch_embeddings
    nn.init.xavier_uniform_(projection.weight.view(options.hidden_size, -1))
    for block in vit.blocks:
        # There is no cross attention, so this norm would never get a gradient.
        block.norm_cross_attn.requires_grad_(False)
        # torch's own attention needs no (N, N) matrix in memory, but drops features in evaluation too
        block.attn.use_flash_attention = options.dropout_rate == 0
        for name, layer in block.named_modules():
            if isinstance(layer, nn.Linear):
                parts = layer.weight.chunk(3) if name.endswith("qkv") else (layer.weight,)  # three matrices in one
                for part in parts:
                    nn.init.xavier_uniform_(part)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return vit


def _grid(options: ViTOptions) -> Shape3D:
    d, h, w = (edge // options.patch_size for edge in options.img_size)
    return d, h, w
