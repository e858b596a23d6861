"""What a pretraining is made of before its first step, for the training itself, its rehearsal and its timing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from medssl.cohort.cohort import Cohort
from medssl.config import PretrainConfig
from medssl.encoders.build import build_encoder, check_patch, explain
from medssl.errors import DataError
from medssl.loading.crops import Crop
from medssl.loading.plan import BatchPlan
from medssl.loading.scan_weights import scan_weights
from medssl.plugins import LoadedTask, load_task, task_config
from medssl.plugins.exits import exits_are_errors
from medssl.pretext.task import PretextTask
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume, open_volume
from medssl.training.patch import choose_patch


@dataclass(frozen=True)
class Scans:
    """What is read: scans of the cohort's chosen splits, with their chances; None draws each once per epoch."""

    cohort: Cohort
    stored: tuple[StoredVolume, ...]
    weights: list[float] | None
    patch: Shape3D


@dataclass(frozen=True)
class Prepared:
    """A pretraining before its first step."""

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
    options = {key: value for key, value in config.task.items() if key != "name"}
    settings = task_config(loaded.cls, options)
    description, _ = explain(
        config.encoder.name,
        preset=config.encoder.preset,
        options=config.encoder.options,
        in_channels=1,
        patch=scans.patch,
        spacing_mm=scans.stored[0].spacing_mm,
    )
    torch.manual_seed(config.loop.seed)
    encoder = build_encoder(description)
    check_patch(encoder, scans.patch)
    task: PretextTask = loaded.cls(encoder, settings)
    return task
