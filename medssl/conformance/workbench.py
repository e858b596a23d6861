"""A task on a tiny encoder, with regions as in training: from a store, a batch plan and a loader."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medssl.conformance.tiny_encoder import TinyEncoder
from medssl.encoders.encoder import Encoder, EncoderDescription
from medssl.errors import ConfigError, PluginError
from medssl.geometry import Volume
from medssl.loading.loader import batch_at
from medssl.loading.plan import BatchPlan
from medssl.pretext.task import PretextTask
from medssl.shapes import Shape3D
from medssl.store.policy import StorePolicy
from medssl.store.volumes import StoredVolume, write_volume
from medssl.views.region import Region

# (D, H, W), all different, so that swapped axes show; multiples of 8.
PATCH = (16, 24, 32)
SCANS = 4
SCAN_SHAPE = (72, 60, 52)  # (X, Y, Z)


class Workbench:
    """One task class with its options, and the steps that the training takes with it."""

    def __init__(
        self, cls: type[PretextTask], *, options: Mapping[str, Any] | None = None, patch: Shape3D = PATCH, seed: int = 7
    ) -> None:
        self.cls, self.patch, self.seed = cls, patch, seed
        self.options = dict(options or {})

    def task(self, *, channels: int = 1) -> PretextTask:
        """A new task on a new tiny encoder for images of so many channels; the same weights each time."""
        torch.manual_seed(self.seed)
        return self.cls(TinyEncoder(in_channels=channels), self.cls.Config(**self.options))

    def region(
        self,
        task: PretextTask,
        *,
        step: int = 0,
        batch: int = 2,
        rank: int = 0,
        world_size: int = 1,
        kind: type[Region] = Region,
    ) -> Region:
        """What the loader hands over for `step`; `batch` samples over all ranks."""
        plan = BatchPlan(phantom_scans(), task.crops(self.patch), batch_size=batch, seed=self.seed)
        read = batch_at(plan, step, rank=rank, world_size=world_size)
        return kind(read, device=torch.device("cpu"), seed=self.seed)

    def views(
        self, task: PretextTask, region: Region | None = None, *, step: int = 0, batch: int = 2
    ) -> dict[str, Tensor]:
        """Views as the loop makes them: without gradient, torch's generator seeded by the step."""
        region = region or self.region(task, step=step, batch=batch)
        torch.manual_seed(self.seed + step)
        with torch.no_grad():
            return task.views(region)

    def train(self, task: PretextTask, optimizer: torch.optim.Optimizer, steps: range, *, total: int) -> None:
        """Take the task through `steps`."""
        for step in steps:
            views = self.views(task, step=step)
            loss = task(views).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            task.after_step(step, total)


def optimizer_of(task: PretextTask) -> torch.optim.Optimizer:
    """AdamW over what a task trains, with a rate at which a few steps show."""
    return torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-3)


@cache
def phantom_scans() -> tuple[StoredVolume, ...]:
    """Stored scans of invented bodies: blobs in an ellipsoid with air around it. Written once a process."""
    folder = Path(tempfile.mkdtemp(prefix="medssl-conformance-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return tuple(
        write_volume(
            folder,
            f"phantom-{number}",
            Volume(_phantom(number), np.diag([1.0, 1.0, 1.0, 1.0])),
            modality="MR",
            label=None,
            policy=StorePolicy(),
        )
        for number in range(SCANS)
    )


def _phantom(number: int) -> npt.NDArray[np.int16]:
    random = np.random.default_rng(number)
    positions = np.stack(np.meshgrid(*(np.linspace(-1, 1, edge) for edge in SCAN_SHAPE), indexing="ij"))
    inside = np.square(positions / np.array([0.95, 0.9, 0.98]).reshape(3, 1, 1, 1)).sum(axis=0) < 1
    volume = 300 + 100 * positions[number % 3]
    for _ in range(8):
        centre, width = random.uniform(-0.7, 0.7, (3, 1, 1, 1)), random.uniform(0.02, 0.1)
        volume = volume + random.uniform(-200, 400) * np.exp(-np.square(positions - centre).sum(axis=0) / width)
    noisy = volume * inside + random.normal(0, 12, SCAN_SHAPE)
    voxels: npt.NDArray[np.int16] = np.clip(noisy, 0, 2000).astype(np.int16)
    return voxels


# (D, H, W), all different, so that swapped axes show; the first that an encoder accepts is taken.
PATCHES = ((16, 24, 32), (32, 64, 96), (64, 96, 128))
CHANNELS = 2


class EncoderBench:
    """One encoder class with its options. preset: as in `encoder.preset`, for classes that know presets."""

    def __init__(
        self, cls: type[Encoder], *, options: Mapping[str, Any] | None = None, preset: str = "tiny", seed: int = 7
    ) -> None:
        self.cls, self.seed = cls, seed
        self.options = dict(options or {})
        self.preset = preset
        self._described: tuple[EncoderDescription, Shape3D] | None = None

    def described(self) -> tuple[EncoderDescription, Shape3D]:
        """The description that the host would make, for images of two channels, and the patch (D, H, W) it is for.

        Raises PluginError where no patch is accepted.
        """
        if self._described is None:  # finding it builds an encoder, and every check asks
            self._described = self._find_description()
        return self._described

    def encoder(self, description: EncoderDescription | None = None, *, new_seed: bool = False) -> Encoder:
        """A new encoder with the same weights each time; with `new_seed`, other ones."""
        return self._built(description or self.described()[0], seed=self.seed + new_seed)

    def image(self, *, batch: int = 2, seed: int = 0, patch: Shape3D | None = None) -> Tensor:
        """(B, 2, D, H, W) noise."""
        random = torch.Generator().manual_seed(seed)
        return torch.randn(batch, CHANNELS, *(patch or self.described()[1]), generator=random)

    def _find_description(self) -> tuple[EncoderDescription, Shape3D]:
        resolve = getattr(self.cls, "resolve", None)
        if resolve is None:
            description = self._describe(self.options)
            divisor = self._built(description).divisor
            d, h, w = (step * blocks for step, blocks in zip(divisor, (2, 3, 4), strict=True))
            return description, (d, h, w)
        problem = ""
        for patch in PATCHES:
            try:
                options, _ = resolve(self.preset, self.options, patch=patch, spacing_mm=None)
            except ConfigError as error:
                problem = str(error)
                continue
            checked = self.cls.Options.model_validate(options)  # type: ignore[attr-defined]
            return self._describe(checked.model_dump(mode="json")), patch
        raise PluginError(f"resolve accepts no patch of {', '.join(map(str, PATCHES))}: {problem}")

    def _describe(self, options: Mapping[str, Any]) -> EncoderDescription:
        return EncoderDescription(name=str(self.cls.name), in_channels=CHANNELS, options=dict(options))  # type: ignore[attr-defined]

    def _built(self, description: EncoderDescription, *, seed: int = 0) -> Encoder:
        torch.manual_seed(seed)
        cls: Any = self.cls
        encoder: Encoder = cls(description)
        return encoder
