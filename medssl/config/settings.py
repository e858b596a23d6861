"""Every setting of a run, with its bounds and its meaning.

`"auto"` is resolved where the number is first needed, and the run says what it chose and why.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(ge=1)]
# `~` is the shell's, and a YAML file does not pass through a shell.
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
PatchSize = tuple[PositiveInt, PositiveInt, PositiveInt]


def _named(choice: Any) -> Any:
    """`task: simclr` is short for `task: {name: simclr}`, and so with `encoder`."""
    return {"name": choice} if isinstance(choice, str) else choice


def _with_name(task: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(task.get("name"), str) or not task["name"]:
        raise ValueError("needs the name of a pretext task, such as {name: masked-volume}")
    return task


TaskChoice = Annotated[dict[str, Any], BeforeValidator(_named), AfterValidator(_with_name)]


class Settings(BaseModel):
    """A group of settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class OptimConfig(Settings):
    """AdamW with a linear warm-up and a cosine decay to `min_lr_ratio` of the peak."""

    lr: float = Field(default=1e-3, gt=0, le=10, description="learning rate at its peak")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="decoupled weight decay of AdamW")
    warmup_fraction: float = Field(
        default=0.05, ge=0, lt=1, description="fraction of the steps in which the learning rate rises from 0"
    )
    clip_norm: float = Field(default=1.0, ge=0, description="largest norm of the gradient; 0 clips nothing")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=(0.9, 0.95), description="decay of AdamW's running mean and square"
    )
    min_lr_ratio: float = Field(
        default=0.0, ge=0, le=1, description="learning rate of the last step, relative to the peak"
    )


class LoopConfig(Settings):
    """How long, how large and on what."""

    steps: int = Field(default=1000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=4, ge=1, description="patches per step over all devices together")
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="of the weights, the order of the scans and every augmentation"
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        default="auto", description="arithmetic; auto is bf16-mixed on a GPU that has it, else 32-true"
    )
    devices: PositiveInt | Auto = Field(
        default="auto", description="GPUs, or processes on a CPU; auto takes every GPU, else one process"
    )
    workers: Annotated[int, Field(ge=0)] | Auto = Field(
        default="auto", description="processes that read scans, per device; 0 reads in the loop"
    )
    log_every: int = Field(default=10, ge=1, description="steps between two lines of metrics")
    checkpoint_every: int = Field(default=200, ge=1, description="steps between two checkpoints")
    diagnose_every: PositiveInt | Auto = Field(
        default="auto", description="steps between two diagnoses of collapse in a pretraining; auto makes about twenty"
    )
    pictures_every: PositiveInt | Auto = Field(
        default="auto", description="steps between two contact sheets; auto spreads about ten over the run"
    )


class EncoderConfig(Settings):
    """The backbone."""

    name: str = Field(
        default="dynunet", min_length=1, description="name of an encoder that ships with medssl or comes from a plugin"
    )
    preset: str = Field(
        default="auto", min_length=1, description="size of the network; auto fits it to patch and spacing"
    )
    options: dict[str, Any] = Field(
        default={}, description="keyword arguments of the encoder, in place of the preset's"
    )


EncoderChoice = Annotated[EncoderConfig, BeforeValidator(_named)]


class ProbeConfig(Settings):
    """A look at a few labels during a pretraining. What is learnt does not depend on it."""

    num_labelled: int = Field(
        default=0,
        ge=0,
        description="labelled scans of the training split on which a linear probe is fitted and scored in turn, 2 or "
        "more; 0 switches it off. The encoder never learns from it, and the test split is never read",
    )
    every: PositiveInt | Auto = Field(
        default="auto", description="steps between two probes; auto makes about ten in a training"
    )

    @field_validator("num_labelled")
    @classmethod
    def _two_halves(cls, num_labelled: int) -> int:
        if num_labelled == 1:
            raise ValueError("a probe is fitted on one half of the scans and scored on the other; give 2 or more")
        return num_labelled


Column = Literal["dataset", "modality", "body_part", "manufacturer", "model"]


class SamplingConfig(Settings):
    """Which scans are drawn how often, and where patches lie. Without `balance` and `factors` every scan comes once per
    epoch.
    """

    balance: tuple[Column | Literal["patient_id"], ...] = Field(
        default=(), description="columns of the manifest whose groups are balanced against each other"
    )
    power: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="a balanced group is drawn in proportion to its number of scans to this power: 1 leaves the "
        "proportions of the cohort, 0 draws all groups alike",
    )
    factors: dict[Column, dict[str, Annotated[float, Field(ge=0)]]] = Field(
        default={}, description="factors on the chance of scans by column and value, such as {modality: {CT: 2}}"
    )
    in_body: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="fraction of patches that are centred in the body; the others lie anywhere in the box around it",
    )


class TrackingConfig(Settings):
    """The mirror in MLflow. The run folder is written either way."""

    enabled: bool = Field(default=True, description="whether the run is mirrored to MLflow")
    uri: str | None = Field(default=None, description="tracking store; without one an SQLite file beside the run")
    experiment: str = Field(default="medssl", min_length=1, description="experiment in which the run appears")
    pictures: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="whether pictures of scans are mirrored; auto: to a local store only, since they are patient data",
    )


class PretrainConfig(Settings):
    """Settings of `medssl pretrain`."""

    cohort: UserPath = Field(description="folder that `medssl ingest` wrote")
    task: TaskChoice = Field(description="name of the pretext task, and its options beside the name")
    plugins: tuple[UserPath, ...] = Field(
        default=(), description="Python files with pretext tasks; nothing else is ever loaded from a folder"
    )
    encoder: EncoderChoice = Field(default=EncoderConfig(), description="the backbone")
    patch: PatchSize | Auto = Field(
        default="auto", description="edges D, H, W of what the network sees, in voxels; auto fits them to the scans"
    )
    select: Literal["last", "rankme", "lidar", "energy-gap"] = Field(
        default="last",
        description="which encoder outlives the run: the last, or the best diagnosed by a rule without labels",
    )
    splits: tuple[str, ...] = Field(default=("train",), min_length=1, description="splits of the cohort that are read")
    regions_per_scan: int = Field(
        default=1, ge=1, description="regions cut from a scan each time it is opened; more are cheaper and less varied"
    )
    sampling: SamplingConfig = Field(
        default=SamplingConfig(), description="which scans are drawn how often, and where patches lie"
    )
    gradient_cache: int = Field(
        default=0,
        ge=0,
        description="patches that a device embeds at a time while the loss sees the whole batch, for tasks that "
        "compare across it: the same gradient in less memory and a third more time; 0 takes the batch at once",
    )
    probe: ProbeConfig = Field(default=ProbeConfig(), description="a linear probe on a few labelled scans")
    optim: OptimConfig = Field(default=OptimConfig(), description="the optimiser")
    loop: LoopConfig = Field(default=LoopConfig(), description="length, size and device")
    tracking: TrackingConfig = Field(default=TrackingConfig(), description="the mirror in MLflow")


class FinetuneConfig(Settings):
    """Settings of `medssl finetune`."""

    cohort: UserPath = Field(description="folder that `medssl ingest` wrote, with labels")
    init: str = Field(min_length=1, description="'scratch', or the folder of a finished pretraining")
    num_labelled: PositiveInt | Literal["all"] = Field(
        default="all", description="number of labelled training scans that are used"
    )
    encoder: EncoderChoice = Field(
        default=EncoderConfig(),
        description="the backbone; a pretraining brings its own, for the scratch it is compared with too",
    )
    patch: PatchSize | Auto = Field(
        default="auto", description="edges D, H, W of what the network sees, in voxels; auto fits them to the scans"
    )
    optim: OptimConfig = Field(default=OptimConfig(), description="the optimiser")
    encoder_lr_scale: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="learning rate of the encoder, relative to the decoder; 0 freezes the encoder",
    )
    loop: LoopConfig = Field(default=LoopConfig(), description="length, size and device")
    augment: float = Field(default=1.0, ge=0, le=2, description="strength of augmentation; 0 switches it off")
    foreground: float = Field(
        default=0.33, ge=0, le=1, description="fraction of patches that are centred on a labelled voxel"
    )
    overlap: float = Field(
        default=0.5, ge=0, lt=1, description="overlap of neighbouring windows in prediction, as a fraction of the patch"
    )
    transfer: Literal["all", "encoder"] = Field(
        default="all", description="what is taken from the pretraining: decoder too, or the encoder only"
    )
    tracking: TrackingConfig = Field(default=TrackingConfig(), description="the mirror in MLflow")
