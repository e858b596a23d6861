"""The small interface behind which every backbone stands."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from medssl.shapes import Shape3D, Spacing3D


class EncoderDescription(BaseModel):
    """All that is needed to build an encoder again: it is stored beside its weights.

    Attributes:
        name: As in `--encoder`.
        in_channels: Of the images.
        options: Keyword arguments of the builder, resolved (no "auto").
        spacing_mm: Of the scans that it was planned for, along D, H, W; None where it was not stated, as for cubes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    in_channels: int = 1
    options: dict[str, Any] = {}
    spacing_mm: Spacing3D | None = None


@dataclass(frozen=True)
class MonaiTarget:
    """The network of MONAI, or of another library, that encoder and decoder are together.

    Attributes:
        path: Of the class, such as 'monai.networks.nets.DynUNet'. It takes `Encoder.monai_arguments`, and its state
            dict has the names of encoder and decoder.
        features: Expression of a MONAI bundle over `@network_def` that gives the encoder's coarsest features.
    """

    path: str
    features: str


class Decoder(nn.Module):
    """Turns a feature pyramid into one map at the resolution of the image."""

    out_channels: int

    @abstractmethod
    def forward(self, pyramid: list[Tensor], image: Tensor) -> Tensor:
        """(B, out_channels, D, H, W). `image`: the encoder's input, which some decoders read again (Swin UNETR)."""


class Encoder(nn.Module):
    """Image to feature pyramid, finest first.

    Parameter names are those of the MONAI network that it is a part of, so that weights can be handed over without
    renaming.

    Attributes:
        description: From which it was built.
        channels: Features per level.
        strides: Of each level relative to the image, along D, H, W.
        monai_target: The network that can be exported to MONAI; None where there is no such network.
    """

    description: EncoderDescription
    channels: tuple[int, ...]
    strides: tuple[Shape3D, ...]
    monai_target: ClassVar[MonaiTarget | None] = None

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

    def monai_arguments(self, out_channels: int) -> dict[str, Any]:
        """Keyword arguments with which the class of `monai_target` builds encoder and decoder; plain JSON types."""
        raise NotImplementedError(f"{type(self).__name__} has a monai_target, so it needs monai_arguments")

    @property
    def unlike_monai(self) -> str | None:
        """Why the class of `monai_target` cannot build this network, in words; None where it can."""
        return None

    @property
    def monai_size(self) -> Shape3D | None:
        """(D, H, W) voxels of the only image that the class of `monai_target` takes; None where it takes others too."""
        return None
