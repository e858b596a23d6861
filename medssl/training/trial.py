"""A pretraining tried for a few steps: what the training would take (`--dry-run`), and where a step's time goes
(`medssl bench`). Nothing is written.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from medssl.config import PretrainConfig
from medssl.loading.crops import Crop
from medssl.loading.plan import BatchPlan
from medssl.plugins.exits import exits_are_errors
from medssl.shapes import Shape3D
from medssl.training.auto_values import chosen_values
from medssl.training.fabric import start_fabric, worker_count
from medssl.training.preparation import choose_scans, make_plan, prepare
from medssl.training.timing import TimedSteps, time_steps

DRY_STEPS = 5
# A step may spend this fraction of its time waiting for data before a change is advised.
MAX_WAIT_FRACTION = 0.02


@dataclass(frozen=True)
class DryRun:
    """What a few steps of a pretraining showed.

    Attributes:
        scans: Scans that are read.
        patch: Edges D, H, W of what the network sees, in voxels.
        encoder: Its name.
        parameters: Of the task, encoder included.
        views: Name to shape, (B, C, D, H, W) of images.
        first_loss: Of the first step.
        trivial_loss: What the task calls trivial, where it does.
        seconds_per_step: The sum of the medians of its parts.
        hours: Of all steps at that speed.
        checkpoint_mb: Parameters with two moments of the optimizer.
        peak_gpu_gb: Memory on a GPU; None on a CPU.
        auto: The value of each setting that is "auto", with the reason.
    """

    scans: int
    patch: Shape3D
    encoder: str
    parameters: int
    views: Mapping[str, tuple[int, ...]]
    first_loss: float
    trivial_loss: float | None
    seconds_per_step: float
    hours: float
    checkpoint_mb: float
    peak_gpu_gb: float | None
    auto: Mapping[str, str]


@dataclass(frozen=True)
class StepTiming:
    """Milliseconds of a step, by part.

    Attributes:
        parts_ms: In the training process, one after the other.
        in_workers_ms: Of one batch in one worker; beside the steps where there are workers.
        step_ms: The sum of `parts_ms`.
        samples_per_s: Regions per second.
        wait_fraction: Of a step, spent waiting for data, in [0, 1].
        advice: What would help, the largest gain first.
    """

    parts_ms: dict[str, float]
    in_workers_ms: dict[str, float]
    step_ms: float
    samples_per_s: float
    wait_fraction: float
    advice: tuple[str, ...]


def dry_run(config: PretrainConfig) -> DryRun:
    """Run a few steps of `config`. Raises what `pretrain` raises before its first step."""
    prepared = prepare(config)
    scans, task = prepared.scans, prepared.task
    fabric = start_fabric(config.loop)
    with exits_are_errors(prepared.loaded.origin):
        timed = time_steps(prepared.plan, task, config=config, fabric=fabric, steps=DRY_STEPS, warm_up=1)
    seconds = timed.step_ms / 1e3
    parameters = sum(p.numel() for p in task.parameters())
    on_gpu = fabric.device.type == "cuda"
    return DryRun(
        scans=len(scans.stored),
        patch=scans.patch,
        encoder=task.encoder.description.name,
        parameters=parameters,
        views=timed.views,
        first_loss=timed.first_loss,
        trivial_loss=timed.trivial_loss,
        seconds_per_step=seconds,
        hours=seconds * config.loop.steps / 3600,
        checkpoint_mb=3 * 4 * parameters / 1e6,
        peak_gpu_gb=torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
        auto=chosen_values(config, task, scans=scans.stored, patch=scans.patch, fabric=fabric),
    )


def benchmark(config: PretrainConfig, *, with_task: bool, steps: int, plugin_files: Sequence[Path] = ()) -> StepTiming:
    """Time the steps of this pretraining, or only its reading.

    Raises what `pretrain` raises before its first step, and DataError where a scan cannot be read.
    """
    if with_task:
        prepared = prepare(config, plugin_files=plugin_files)
        plan, task = prepared.plan, prepared.task
    else:
        scans = choose_scans(config)
        plan, task = make_plan(config, scans, {"patch": Crop(size=scans.patch, flip=(0.0, 0.0, 0.5))}), None
    fabric = start_fabric(config.loop)
    timed = time_steps(plan, task, config=config, fabric=fabric, steps=steps)
    return _summary(timed, time_reading(plan, samples=2 * plan.batch_size), plan, worker_count(config.loop))


def time_reading(plan: BatchPlan, *, samples: int) -> dict[str, float]:
    """Median milliseconds per sample of fetching the packed bytes of its blocks, and of unpacking the box from them."""
    by_id = {scan.scan_id: scan for scan in plan.scans}
    fetching, reading = [], []
    for sample in map(plan.sample, range(samples)):
        scan = by_id[sample.scan_id]
        started = time.perf_counter()
        scan.fetch(sample.start, sample.stop)
        fetched = time.perf_counter()
        scan.read(sample.start, sample.stop)
        fetching.append(fetched - started)
        reading.append(time.perf_counter() - fetched)
    fetch_ms = 1e3 * statistics.median(fetching)
    return {"read": fetch_ms, "decode": max(0.0, 1e3 * statistics.median(reading) - fetch_ms)}


def _summary(timed: TimedSteps, reading: dict[str, float], plan: BatchPlan, workers: int) -> StepTiming:
    wait_fraction = timed.parts_ms["wait"] / timed.step_ms
    per_batch = {name: ms * plan.batch_size for name, ms in reading.items()}
    return StepTiming(
        parts_ms=timed.parts_ms,
        in_workers_ms=per_batch,
        step_ms=timed.step_ms,
        samples_per_s=1e3 * plan.batch_size / timed.step_ms,
        wait_fraction=wait_fraction,
        advice=tuple(_advice(timed.parts_ms, per_batch, wait_fraction, workers)),
    )


def _advice(parts: dict[str, float], reading: dict[str, float], wait_fraction: float, workers: int) -> list[str]:
    """What would make a step faster, the largest gain first."""
    advice = []
    busy = sum(reading.values()) / max(1e-9, sum(parts.values()) - parts["wait"])  # workers that keep up
    if wait_fraction > MAX_WAIT_FRACTION and workers == 0:
        advice.append("Reading happens between the steps. Let workers read ahead: --set loop.workers=2.")
    elif wait_fraction > MAX_WAIT_FRACTION and busy < workers:
        advice.append(
            "There are enough workers, but they are held up: other programs or too many workers share the cores, or "
            "the disk is slow at times. Close other programs, or lower loop.workers."
        )
    elif wait_fraction > MAX_WAIT_FRACTION and reading["read"] > reading["decode"]:
        advice.append("The disk is the limit. Put the store on a faster disk, or cut more regions per scan.")
    elif wait_fraction > MAX_WAIT_FRACTION:
        advice.append(
            f"Unpacking is the limit. Use at least {int(busy) + 1} workers: --set loop.workers={int(busy) + 1}; or "
            "ingest with --packing none where the disk is large and fast."
        )
    if parts["views"] > 0.25 * sum(parts.values()):
        advice.append("Views take a quarter of the step or more. Lower chances of rotation and of augmentation.")
    return advice or ["The data path keeps up: a step is as fast as the network."]
