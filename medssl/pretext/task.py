"""The class that a plugin's hook returns, and what it hands back for one batch."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from medssl.encoders.encoder import Decoder, Encoder
from medssl.loading.crops import Crop
from medssl.shapes import Shape3D
from medssl.views.region import Region

PICTURE_AXES = 5  # (B, C, D, H, W)


@dataclass  # not frozen: Fabric converts the precision of outputs field by field
class Step:
    """The loss of one batch, and what a reviewer wants to see of it.

    Attributes:
        loss: scalar with gradient.
        energy: (B,) energy of each sample's pair, low where the two belong together; without gradient.
        negative_energy: (B,) energy of pairs that do not belong together, such as shuffled ones; None if unknown.
        trivial_loss: loss of the collapsed or trivial solution, to compare the loss with; None if there is none. A
            value that depends on the batch goes to `terms["trivial_loss"]` instead.
        terms: detached scalars by name, logged beside the loss.
        pictures: (B, C, D, H, W) volumes by name, in the order of display. Only the first channel is kept.
        embeddings: (N, F) detached features for the collapse monitors; None if the task has none.
        valid_fraction: (B,) fraction of each sample's voxels that enter its energy. Where it is 0 (air, one grey
            value) the energy means nothing. None if all voxels count.
        parts: steps of the tasks that a combined task consists of, by name, all detached: the sum must not hide a
            part that collapses.
    """

    loss: Tensor
    energy: Tensor
    negative_energy: Tensor | None = None
    trivial_loss: float | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    embeddings: Tensor | None = None
    valid_fraction: Tensor | None = None
    parts: Mapping[str, "Step"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep the first channel of each picture: a sheet shows grey levels."""
        volumes = {name for name, picture in self.pictures.items() if getattr(picture, "ndim", 0) == PICTURE_AXES}
        self.pictures = {
            name: picture[:, :1] if name in volumes else picture for name, picture in self.pictures.items()
        }


class TaskConfig(BaseModel):
    """Settings of a task: frozen, unknown keys are errors.

    Give every field bounds, a default and a description with its unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class PretextTask(nn.Module):
    """Views plus a loss over an encoder.

    The host owns data, device, precision, optimiser, distribution, checkpoints, tracking and collapse monitors. A
    task owns what is below. It draws random numbers from `region.random` (or torch), never writes to its input, and
    neither logs nor moves to devices.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    Config: ClassVar[type[TaskConfig]] = TaskConfig

    def __init__(self, encoder: Encoder, config: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config

    def crops(self, patch: Shape3D) -> Mapping[str, Crop]:
        """Crops that `views` will ask for, given the patch size (D, H, W) of the run.

        Default: one plain patch, mirrored at random.
        """
        return {"patch": Crop(size=patch, flip=(0.0, 0.0, 0.5))}

    @abstractmethod
    def views(self, region: Region) -> dict[str, Tensor]:
        """Tensors for `forward`, made on the device, without gradient and outside autocast."""

    @abstractmethod
    def forward(self, views: dict[str, Tensor]) -> Step:
        """Loss, energy and pictures of one batch.

        In eval mode it changes no state (queues, centres): pictures and scores are drawn so.
        """

    def after_step(self, step: int, total: int) -> None:
        """Called once after each optimiser step: momentum teachers, queues."""

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, Any]:
        """What settings that are "auto" come to for a patch (D, H, W) and so many steps, by name, for the run's record.

        A setting that is left out here is recorded with the rule alone, which its description gives after "auto:".
        """
        return {}

    def unscheduled_modules(self) -> Iterable[nn.Module]:
        """Modules whose learning rate stays at its peak, outside the lr schedule; default none."""
        return ()

    def exported_encoder(self) -> Encoder:
        """The encoder that outlives pretraining; a teacher-student task returns its teacher."""
        return self.encoder

    def exported_decoder(self) -> Decoder | None:
        """The decoder that fine-tuning can start from, where the task trained one."""
        return None
