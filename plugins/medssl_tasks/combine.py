"""Combine: a weighted sum of tasks over one encoder (multi-task learning)."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medssl.encoders.encoder import Decoder, Encoder
from medssl.errors import ConfigError
from medssl.hookspecs import hookimpl
from medssl.loading.crops import Crop
from medssl.plugins import load_task, task_config
from medssl.pretext.collectives import sum_over_ranks, world_size
from medssl.pretext.task import PretextTask, Step, TaskConfig, automatic_settings
from medssl.randomness import SampleRandom
from medssl.shapes import Shape3D
from medssl.views.region import Region

# The trivial loss of a batch of air is nearly 0. Divided by that, its noise would outweigh every other batch.
MIN_TRIVIAL = 0.01


class Part(BaseModel):
    """One task of a combination."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1, description="Name of the task.")
    weight: float = Field(default=1.0, gt=0.0, le=1000.0, description="Factor of its loss.")
    options: dict[str, Any] = Field(default={}, description="The task's own settings.")


class Combine(PretextTask):
    """Several tasks learn with one encoder from the same batch; their losses are weighted and added."""

    name = "combine"
    family = "multi-task"

    class Config(TaskConfig):
        """Settings of combine."""

        tasks: tuple[Part, ...] = Field(
            default=(Part(name="masked-volume"), Part(name="simclr")),
            min_length=2,
            description="Tasks, each with name, weight and options. The first that trained a decoder hands it over.",
        )
        relative: bool = Field(
            default=True,
            description="Divide each loss by its trivial value, where it has one, before weighting: the losses "
            "then all begin near their weight, whatever they measure.",
        )

    files: ClassVar[tuple[Path, ...]] = ()

    @classmethod
    def with_plugins(cls, files: tuple[Path, ...]) -> type["Combine"]:
        """The same task, which finds its parts in these plugin files too."""
        return type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "__module__": cls.__module__, "files": files})

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        names = [part.name for part in config.tasks]
        if self.name in names or len(set(names)) < len(names):
            raise ConfigError(f"task.tasks is {names}. Name each task once, and not '{self.name}' itself.")
        loaded = [(part, load_task(part.name, files=self.files).cls) for part in config.tasks]
        self.parts = nn.ModuleDict({part.name: cls(encoder, task_config(cls, part.options)) for part, cls in loaded})
        self.weights = {part.name: part.weight for part in config.tasks}

    def crops(self, patch: Shape3D) -> Mapping[str, Crop]:
        """Every task's crops, under the task's name."""
        crops = {}
        for name, task in self._tasks():
            for key, crop in task.crops(patch).items():
                anchor = None if crop.anchor is None else f"{name}/{crop.anchor}"
                crops[f"{name}/{key}"] = replace(crop, anchor=anchor)
        return crops

    def views(self, region: Region) -> dict[str, Tensor]:
        """Every task's views, under the task's name."""
        return {
            f"{name}/{key}": view
            for name, task in self._tasks()
            for key, view in task.views(PartOfRegion(region, name)).items()
        }

    def forward(self, views: dict[str, Tensor]) -> Step:
        """The sum; terms and pictures of each task under its name."""
        steps = {name: task(_under(views, name)) for name, task in self._tasks()}
        trivial = {name: self._trivial(step) for name, step in steps.items()}
        scale = {name: self._scale(name, trivial[name]) for name in steps}
        negatives = {name: step.negative_energy for name, step in steps.items() if step.negative_energy is not None}
        fractions = [step.valid_fraction for step in steps.values() if step.valid_fraction is not None]
        embeddings = [step.embeddings for step in steps.values() if step.embeddings is not None]
        collapsed = [scale[name] * value for name, value in trivial.items() if value is not None]
        fixed = [value for value in collapsed if isinstance(value, float)]
        terms = {
            f"{name}/{key}": value
            for name, step in steps.items()
            for key, value in {"loss": step.loss.detach(), **step.terms}.items()
        }
        if len(fixed) < len(collapsed) == len(steps):
            terms["trivial_loss"] = cast(Tensor, sum(collapsed))
        return Step(
            loss=_total(scale, {name: step.loss for name, step in steps.items()}),
            energy=_total(scale, {name: step.energy for name, step in steps.items()}),
            negative_energy=_total(scale, negatives) if len(negatives) == len(steps) else None,
            trivial_loss=sum(fixed) if len(fixed) == len(steps) else None,
            terms=terms,
            pictures={f"{name}/{key}": image for name, step in steps.items() for key, image in step.pictures.items()},
            embeddings=embeddings[0] if embeddings else None,
            # Per sample the smallest fraction: a sum of energies means nothing if one of them does not.
            valid_fraction=torch.stack(fractions).amin(dim=0) if fractions else None,
            parts={name: replace(step, loss=step.loss.detach(), pictures={}) for name, step in steps.items()},
        )

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, str]:
        """Those of every task, as `task.setting`."""
        return {
            f"{name}.{setting}": why
            for name, task in self._tasks()
            for setting, why in automatic_settings(task, patch=patch, steps=steps).items()
        }

    def unscheduled_modules(self) -> Iterable[nn.Module]:
        """Those of every task."""
        return [module for _, task in self._tasks() for module in task.unscheduled_modules()]

    def after_step(self, step: int, total: int) -> None:
        """As each task's."""
        for _, task in self._tasks():
            task.after_step(step, total)

    def exported_encoder(self) -> Encoder:
        """The encoder that all tasks trained."""
        return self.encoder

    def exported_decoder(self) -> Decoder | None:
        """The decoder of the first task that trained one."""
        return next((decoder for _, task in self._tasks() if (decoder := task.exported_decoder()) is not None), None)

    def _tasks(self) -> list[tuple[str, PretextTask]]:
        return [(name, cast(PretextTask, task)) for name, task in self.parts.items()]

    def _trivial(self, step: Step) -> float | Tensor | None:
        """Trivial loss of a task: a fixed number, or the mean over ranks, so that all ranks weight its loss alike."""
        of_batch = step.terms.get("trivial_loss")
        if step.trivial_loss is not None or of_batch is None:
            return step.trivial_loss
        return sum_over_ranks(of_batch, across_ranks=self.training) / world_size(across_ranks=self.training)

    def _scale(self, name: str, trivial: float | Tensor | None) -> float | Tensor:
        weight = self.weights[name]
        if not self.config.relative or trivial is None:
            return weight
        return weight / (trivial.clamp_min(MIN_TRIVIAL) if isinstance(trivial, Tensor) else trivial or 1.0)


class PartOfRegion(Region):
    """A region as one task of a combination sees it, with its crops by their names and a separate random stream.

    Voxels stay with the combination's region, to which every call is passed on.
    """

    def __init__(self, region: Region, name: str) -> None:
        self._region, self._name = region, name
        self.device, self.spacing_mm = region.device, region.spacing_mm
        self.numbers, self.scan_ids = region.numbers, region.scan_ids
        # a separate seed instead of separate names, because a task may use any name
        self.random = SampleRandom(_seed(region.random.seed, name), region.random.numbers, region.random.device)

    def crop(self, name: str) -> Tensor:
        """As `Region.crop`."""
        return self._region.crop(f"{self._name}/{name}")

    def valid(self, name: str) -> Tensor:
        """As `Region.valid`."""
        return self._region.valid(f"{self._name}/{name}")

    def label(self, name: str) -> Tensor:
        """As `Region.label`."""
        return self._region.label(f"{self._name}/{name}")

    def matrix(self, name: str) -> Tensor:
        """As `Region.matrix`."""
        return self._region.matrix(f"{self._name}/{name}")

    def between(self, name: str, other: str) -> Tensor:
        """As `Region.between`."""
        return self._region.between(f"{self._name}/{name}", f"{self._name}/{other}")

    def size(self, name: str) -> Shape3D:
        """As `Region.size`."""
        return self._region.size(f"{self._name}/{name}")

    @property
    def crop_names(self) -> tuple[str, ...]:
        """As `Region.crop_names`, of this task alone."""
        prefix = f"{self._name}/"
        return tuple(name.removeprefix(prefix) for name in self._region.crop_names if name.startswith(prefix))


def _under(views: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The views of one task by the names that it gave them."""
    return {key.removeprefix(f"{name}/"): view for key, view in views.items() if key.startswith(f"{name}/")}


def _total(scale: Mapping[str, float | Tensor], values: Mapping[str, Tensor]) -> Tensor:
    """Sum of the values, each times its scale."""
    first, *remaining = [scale[name] * value for name, value in values.items()]
    return sum(remaining, start=first)


def _seed(seed: int, name: str) -> int:
    """A separate seed for each task of a combination, a function of the run's seed and the task's name."""
    return int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=6).digest(), "little")


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [Combine]
