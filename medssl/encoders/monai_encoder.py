"""What the encoders made of MONAI's blocks have in common."""

from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from medssl.encoders.encoder import Encoder, EncoderDescription

M = TypeVar("M", bound=BaseModel)


class MonaiEncoder(Encoder, Generic[M]):
    """An encoder whose options are named as MONAI's arguments.

    Attributes:
        name: As in `--encoder`.
        Options: The model that checks its options.
        options: Those it was built from.
    """

    name: ClassVar[str]
    Options: type[M]
    options: M

    def __init__(self, description: EncoderDescription) -> None:
        super().__init__()
        self.options = self.Options.model_validate(description.options)
        resolved = {"name": self.name, "options": self.options.model_dump(mode="json")}
        self.description = description.model_copy(update=resolved)

    def monai_arguments(self, out_channels: int) -> dict[str, Any]:
        """Keyword arguments with which the class of `monai_target` builds the same network; plain JSON types."""
        return network_arguments(self.options, self.description.in_channels, out_channels)


def network_arguments(options: BaseModel, in_channels: int, out_channels: int) -> dict[str, Any]:
    """Those of `monai_arguments`, before there is an encoder."""
    sizes = options.model_dump(mode="json")
    return {"spatial_dims": 3, "in_channels": in_channels, "out_channels": out_channels, **sizes}
