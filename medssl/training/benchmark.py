"""What `medssl bench` measures: a pretraining's own plan and task, for a few steps."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl.config import PretrainConfig
from medssl.loading.crops import Crop
from medssl.loading.plan import BatchPlan
from medssl.training.fabric import start_fabric, worker_count
from medssl.training.preparation import choose_scans, make_plan, prepare
from medssl.training.timing import TimedSteps, time_steps

# Above this share of a step, waiting for data is worth a change.
WAIT_SHARE = 0.02


@dataclass(frozen=True)
class StepTiming:
    """Milliseconds of a step, by part.

    read, decode: of one worker, in parallel to the rest where there are workers.
    """

    parts_ms: dict[str, float]
    in_workers_ms: dict[str, float]
    step_ms: float
    samples_per_s: float
    wait_share: float
    advice: tuple[str, ...]


def benchmark(config: PretrainConfig, *, with_task: bool, steps: int, plugin_files: Sequence[Path] = ()) -> StepTiming:
    """Time the steps of this pretraining, or only its reading; nothing is written.

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
    read, whole = [], []
    for sample in map(plan.sample, range(samples)):
        scan = by_id[sample.scan_id]
        started = time.perf_counter()
        scan.fetch(sample.start, sample.stop)
        fetched = time.perf_counter()
        scan.read(sample.start, sample.stop)
        read.append(fetched - started)
        whole.append(time.perf_counter() - fetched)
    read_ms = 1e3 * statistics.median(read)
    return {"read": read_ms, "decode": max(0.0, 1e3 * statistics.median(whole) - read_ms)}


def _summary(timed: TimedSteps, reading: dict[str, float], plan: BatchPlan, workers: int) -> StepTiming:
    share = timed.parts_ms["wait"] / timed.step_ms
    per_batch = {name: ms * plan.batch_size for name, ms in reading.items()}
    return StepTiming(
        parts_ms=timed.parts_ms,
        in_workers_ms=per_batch,
        step_ms=timed.step_ms,
        samples_per_s=1e3 * plan.batch_size / timed.step_ms,
        wait_share=share,
        advice=tuple(_advice(timed.parts_ms, per_batch, share, workers)),
    )


def _advice(parts: dict[str, float], reading: dict[str, float], share: float, workers: int) -> list[str]:
    """What would make a step faster, the largest gain first."""
    advice = []
    busy = sum(reading.values()) / max(1e-9, sum(parts.values()) - parts["wait"])  # workers that keep up
    if share > WAIT_SHARE and workers == 0:
        advice.append("Reading happens between the steps. Let workers read ahead: --set loop.workers=2.")
    elif share > WAIT_SHARE and busy < workers:
        advice.append(
            "The workers are enough, but do not get to it: other programs, or too many workers, share the cores, or "
            "the disk is slow at times. Close what else runs, or lower loop.workers."
        )
    elif share > WAIT_SHARE and reading["read"] > reading["decode"]:
        advice.append("The disk is the limit. Put the store on a faster disk, or cut more regions per scan.")
    elif share > WAIT_SHARE:
        advice.append(
            f"Unpacking is the limit. Use at least {int(busy) + 1} workers: --set loop.workers={int(busy) + 1}; or "
            "ingest with --packing none where the disk is large and fast."
        )
    if parts["views"] > 0.25 * sum(parts.values()):
        advice.append("Views take a quarter of the step or more. Lower chances of rotation and of augmentation.")
    return advice or ["The data path keeps up: a step is as fast as the network."]
