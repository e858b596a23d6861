"""What a pretraining is made of before its first step: for the training, its dry run and its benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medssl.cohort.cohort import Cohort
from medssl.config import PretrainConfig
from medssl.encoders.build import build_encoder, check_patch, describe
from medssl.errors import DataError
from medssl.loading.crops import Crop
from medssl.loading.plan import BatchPlan
from medssl.loading.scan_weights import scan_weights
from medssl.plugins import LoadedTask, load_task, task_config
from medssl.plugins.exits import exits_are_errors
from medssl.pretext.task import PretextTask
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume, open_volume

PATCH_STEP = 16  # what most encoders need; the automatic patch keeps to it
VOXELS_ON_GPU = 96**3
VOXELS_ON_CPU = 40**3  # about a second per step of a small network on two cores


@dataclass(frozen=True)
class Scans:
    """What is read.

    Attributes:
        cohort: The cohort that the scans lie in.
        stored: Its scans of the chosen splits.
        weights: The chance of each scan; None draws each once per epoch.
        patch: Edges D, H, W of what the network sees, in voxels.
    """

    cohort: Cohort
    stored: tuple[StoredVolume, ...]
    weights: list[float] | None
    patch: Shape3D


@dataclass(frozen=True)
class Prepared:
    """A pretraining before its first step: what is read, the task with its origin, and the stream of samples."""

    scans: Scans
    loaded: LoadedTask
    task: PretextTask
    plan: BatchPlan


def prepare(config: PretrainConfig, *, plugin_files: Sequence[Path] = ()) -> Prepared:
    """The task over a freshly initialised encoder, and the stream of samples it will see.

    Raises DataError when the cohort has no scans in `config.splits`, ConfigError and PluginError for settings and
    tasks.
    """
    loaded = load_task(str(config.task.get("name", "")), files=[*config.plugins, *plugin_files])
    scans = choose_scans(config)
    with exits_are_errors(loaded.origin):
        task = build_task(config, loaded, scans)
        return Prepared(scans, loaded, task, make_plan(config, scans, task.crops(scans.patch)))


def choose_scans(config: PretrainConfig) -> Scans:
    """Stored scans of the splits; labels are not needed and not read."""
    cohort = Cohort.open(config.cohort)
    rows = [row for split in config.splits for row in cohort.accepted(split=split)]
    if not rows:
        raise DataError(
            f"The cohort has no accepted scan in the split {' or '.join(config.splits)}. "
            "Look at `medssl archive report`, or choose others with --set splits."
        )
    stored = tuple(open_volume(cohort.store, row.scan_id) for row in rows)
    return Scans(cohort, stored, scan_weights(rows, config.sampling), choose_patch(stored, config.patch))


def choose_patch(scans: Sequence[StoredVolume], setting: Shape3D | str) -> Shape3D:
    """Patch edges (D, H, W) in voxels, as set or automatic.

    Automatic: the median shape of the scans, each edge cut to a multiple of 16, the longest edge shortened until the
    patch fits the device.
    """
    if not isinstance(setting, str):
        return setting
    limit = VOXELS_ON_GPU if torch.cuda.is_available() else VOXELS_ON_CPU
    median = np.median([scan.shape for scan in scans], axis=0)
    edges = [max(PATCH_STEP, int(edge) // PATCH_STEP * PATCH_STEP) for edge in median]
    while np.prod(edges) > limit and max(edges) > PATCH_STEP:
        edges[int(np.argmax(edges))] -= PATCH_STEP
    return edges[0], edges[1], edges[2]


def make_plan(config: PretrainConfig, scans: Scans, crops: Mapping[str, Crop]) -> BatchPlan:
    """The stream of samples that these settings ask for."""
    return BatchPlan(
        scans.stored,
        crops,
        batch_size=config.loop.batch_size,
        seed=config.loop.seed,
        weights=scans.weights,
        regions_per_scan=config.regions_per_scan,
        in_body=config.sampling.in_body,
    )


def build_task(config: PretrainConfig, loaded: LoadedTask, scans: Scans) -> PretextTask:
    """The task over a freshly initialised encoder; both depend on the seed alone."""
    settings = task_config(loaded.cls, config.task)
    chosen, patch, spacing_mm = config.encoder, scans.patch, scans.stored[0].spacing_mm
    description = describe(
        chosen.name, preset=chosen.preset, options=chosen.options, patch=patch, spacing_mm=spacing_mm
    )
    torch.manual_seed(config.loop.seed)
    encoder = build_encoder(description)
    check_patch(encoder, patch)
    task: PretextTask = loaded.cls(encoder, settings)
    return task
