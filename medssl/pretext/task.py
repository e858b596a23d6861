"""The class that a plugin's hook returns, its settings, and the `Step` that it returns for each batch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Field  # handed out as medssl.Field
from torch import Tensor, nn

from medssl.encoders.encoder import Decoder, Encoder
from medssl.loading.crops import Crop
from medssl.shapes import Shape3D
from medssl.views.region import Region

Views = dict[str, Tensor]

AUTO = "auto"
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


class ViewsConfig(TaskConfig):
    """Settings that many tasks have in common, with the crops and views that follow from them.

    A task whose `Config` derives from one of these inherits its crops, views and pictures without a line of code.
    """

    def crops(self, patch: Shape3D, *, divisor: Shape3D) -> Mapping[str, Crop]:
        """Crops for `PretextTask.crops`.

        Args:
            patch: edges (D, H, W) of the run's patch in voxels.
            divisor: what the encoder needs the edges of a crop to be multiples of.
        """
        raise NotImplementedError

    def views(self, region: Region) -> Views:
        """Views for `PretextTask.views`. Default: each crop as it is."""
        return {name: region.crop(name) for name in region.crop_names}

    def pictures(self, views: Views) -> Mapping[str, Tensor]:
        """Pictures for the default `PretextTask.forward`. Default: none."""
        return {}


@runtime_checkable
class Compares(Protocol):
    """A task that looks across the batch, its forward split in two.

    The gradient cache and the gather across ranks act between the halves. The first axis of every tensor that goes into
    or comes out of `embed` is the samples.
    """

    def embed(self, views: Views) -> Views:
        """Embeddings; no sample depends on another."""

    def compare(self, embeddings: Views) -> Step:
        """The step of a batch from the embeddings of this rank's samples; gathers those of other ranks itself."""


class PretextTask(nn.Module):
    """Views plus a loss over an encoder.

    The host owns data, device, precision, optimizer, distribution, checkpoints, tracking and collapse monitors. A
    task owns what is below. It draws random numbers from `region.random` (or torch), never writes to its input, and
    neither logs nor moves to devices.

    A task defines `__init__`, `views` and either `forward`, or `embed` and `compare`. The rest has defaults.

    Attributes:
        name: what `--task` takes: lower-case letters, digits and hyphens.
        family: kind of pretext task in the field's words, such as "masked modelling" or "contrastive".
        Config: its settings.
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

        Default: those of a `ViewsConfig`; with any other config one plain patch, mirrored left-right at random.
        """
        if isinstance(self.config, ViewsConfig):
            return self.config.crops(patch, divisor=self.encoder.divisor)
        return {"patch": Crop(size=patch, flip=(0.0, 0.0, 0.5))}

    def views(self, region: Region) -> Views:
        """Tensors for `forward`, made on the device, without gradient and outside autocast.

        Default: those of a `ViewsConfig`; with any other config each crop as it is.
        """
        if isinstance(self.config, ViewsConfig):
            return self.config.views(region)
        return {name: region.crop(name) for name in region.crop_names}

    def forward(self, views: Views) -> Step:
        """Loss, energy and pictures of one batch.

        Default: `compare(embed(views))`, with the pictures of a `ViewsConfig`. In eval mode it changes no state
        (queues, centres): pictures and scores are computed in that mode.
        """
        if not isinstance(self, Compares):
            raise NotImplementedError(f"{type(self).__name__} defines neither `forward` nor `embed` and `compare`.")
        step = self.compare(self.embed(views))
        if not isinstance(self.config, ViewsConfig):
            return step
        return replace(step, pictures={**step.pictures, **self.config.pictures(views)})

    def after_step(self, step: int, total: int) -> None:
        """Called once after each optimizer step: momentum teachers, queues."""

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, Any]:
        """Values of the settings that are "auto" for a patch (D, H, W) and a number of steps, by name, for the record.

        A setting that is missing here is recorded with its rule alone: the part of its description after "auto:".
        """
        return {}

    def unscheduled_modules(self) -> Iterable[nn.Module]:
        """Modules whose learning rate stays at its peak, outside the lr schedule; default none."""
        return ()

    def exported_encoder(self) -> Encoder:
        """The encoder that outlives pretraining; a teacher-student task returns its teacher."""
        return self.encoder

    def exported_decoder(self) -> Decoder | None:
        """The decoder that fine-tuning starts from. Default: `self.decoder`, if that is a decoder of the encoder."""
        decoder = getattr(self, "decoder", None)
        return decoder if isinstance(decoder, Decoder) else None


def automatic_settings(task: PretextTask, *, patch: Shape3D, steps: int) -> dict[str, str]:
    """Value and rule of each setting that is "auto", by its name.

    What `task.automatic` returns beyond its settings, as a combination does for its parts, is taken as it is.
    """
    values, fields = task.automatic(patch, steps), type(task).Config.model_fields
    described: dict[str, str] = {}
    for name, setting in fields.items():
        if getattr(task.config, name, None) == AUTO:
            rule = (setting.description or "").rpartition("auto: ")[2].rstrip(".")
            described[name] = f"{values[name]}: {rule}" if name in values else rule
    return described | {name: str(value) for name, value in values.items() if name not in fields}
