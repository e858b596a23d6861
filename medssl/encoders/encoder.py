"""The small interface behind which every backbone stands."""

from abc import abstractmethod
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from medssl.shapes import Shape3D, Spacing3D


class EncoderDescription(BaseModel):
    """All that is needed to build an encoder again: it is stored beside its weights.

    name: as in `--encoder`. in_channels: of the images. options: keyword arguments of the builder, resolved (no
    "auto"). spacing_mm: of the scans that it was planned for, along D, H, W; None where nobody said, as for cubes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    in_channels: int = 1
    options: dict[str, Any] = {}
    spacing_mm: Spacing3D | None = None


class Decoder(nn.Module):
    """Turns a feature pyramid into one map at the resolution of the image."""

    out_channels: int

    @abstractmethod
    def forward(self, pyramid: list[Tensor], image: Tensor) -> Tensor:
        """(B, out_channels, D, H, W). `image`: the encoder's input, which some decoders read again (Swin UNETR)."""


class Encoder(nn.Module):
    """Image to feature pyramid, finest first.

    channels: features per level. strides: of each level relative to the image, per axis (D, H, W). Parameter names
    are those of the MONAI network that it is a part of, so that weights can be handed over without renaming.
    """

    description: EncoderDescription
    channels: tuple[int, ...]
    strides: tuple[Shape3D, ...]

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) to one (B, channels[i], D/stride, H/stride, W/stride) per level."""

    @abstractmethod
    def make_decoder(self, out_channels: int) -> Decoder:
        """The matching decoder, freshly initialised: together they are the MONAI network."""

    @property
    def divisor(self) -> Shape3D:
        """What the edges (D, H, W) of an input must be multiples of."""
        return self.strides[-1]
