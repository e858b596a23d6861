"""Where the time of a training step goes: read, decode, copy, views, forward, backward, optimiser, wait."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch

from medssl.config import OptimConfig
from medssl.pretext.task import PretextTask
from medssl.store.blocks import open_blocks
from medssl.store.loader import RegionLoader
from medssl.store.plan import BatchPlan
from medssl.store.volumes import StoredVolume, image_path
from medssl.training.optimisation import make_optimiser
from medssl.views.region import Region

# The first steps fill caches, start workers and let libraries choose their algorithms.
WARM_UP = 3
# Above this share of a step, waiting for data is worth a change.
WAIT_SHARE = 0.02


@dataclass(frozen=True)
class StepTiming:
    """Median milliseconds of a step, by part.

    read, decode: of one worker, in parallel to the rest where there are workers.
    """

    parts_ms: dict[str, float]
    in_workers_ms: dict[str, float]
    step_ms: float
    samples_per_s: float
    wait_share: float
    advice: tuple[str, ...]


class Stopwatch:
    """Seconds per named part; on a GPU each part ends when the device is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)

    def medians_ms(self) -> dict[str, float]:
        """Median per part, without the first steps."""
        return {name: 1e3 * statistics.median(values[WARM_UP:] or values) for name, values in self.seconds.items()}


def time_steps(
    plan: BatchPlan, task: PretextTask | None, *, optim: OptimConfig, workers: int, steps: int, device: torch.device
) -> StepTiming:
    """Train `task` for some steps and throw the result away; without a task, only read and cut the plan's crops.

    Raises DataError where a scan cannot be read.
    """
    watch = Stopwatch(device)
    optimiser = None if task is None else make_optimiser([(task.to(device), 1.0)], optim)
    with RegionLoader(plan, workers=workers, first_step=0, pin=device.type == "cuda") as loader:
        batches = iter(loader)
        for _ in range(steps + WARM_UP):
            with watch.part("wait"):
                batch = next(batches)
            with watch.part("copy"):
                region = Region.from_batch(batch, device=device, seed=plan.seed)
            with watch.part("views"), torch.no_grad():
                views = {n: region.crop(n) for n in region.crop_names} if task is None else task.views(region)
            if task is None or optimiser is None:
                continue
            with watch.part("forward"), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = task(views).loss
            with watch.part("backward"):
                loss.backward()
            with watch.part("optimiser"):
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
    return _summary(watch.medians_ms(), time_reading(plan, samples=2 * plan.batch_size), plan, workers)


def time_reading(plan: BatchPlan, *, samples: int) -> dict[str, float]:
    """Median milliseconds per sample of fetching the packed bytes of its blocks, and of unpacking the box from them."""
    by_id = {scan.scan_id: scan for scan in plan.scans}
    read, whole = [], []
    for sample in map(plan.sample, range(samples)):
        scan = by_id[sample.scan_id]
        started = time.perf_counter()
        _fetch_packed(scan, sample.start, sample.stop)
        fetched = time.perf_counter()
        scan.read(sample.start, sample.stop)
        read.append(fetched - started)
        whole.append(time.perf_counter() - fetched)
    read_ms = 1e3 * statistics.median(read)
    return {"read": read_ms, "decode": max(0.0, 1e3 * statistics.median(whole) - read_ms)}


def _fetch_packed(scan: StoredVolume, start: Sequence[int], stop: Sequence[int]) -> None:
    """Read the packed chunks that a box touches, and unpack nothing."""
    stored = open_blocks(image_path(scan.folder, scan.scan_id), scan.scan_id)
    rows = [range(a // c, (b - 1) // c + 1) for a, b, c in zip(start, stop, stored.chunks, strict=True)]
    counts = [-(-n // c) for n, c in zip(stored.shape, stored.chunks, strict=True)]
    for d, h, w in product(*rows):
        stored.schunk.get_chunk((d * counts[1] + h) * counts[2] + w)


def _summary(parts: dict[str, float], reading: dict[str, float], plan: BatchPlan, workers: int) -> StepTiming:
    step = sum(parts.values())
    share = parts["wait"] / step
    per_batch = {name: ms * plan.batch_size for name, ms in reading.items()}
    return StepTiming(
        parts_ms=parts,
        in_workers_ms=per_batch,
        step_ms=step,
        samples_per_s=1e3 * plan.batch_size / step,
        wait_share=share,
        advice=tuple(_advice(parts, per_batch, share, workers)),
    )


def _advice(parts: dict[str, float], reading: dict[str, float], share: float, workers: int) -> list[str]:
    """What would make a step faster, the largest gain first."""
    advice = []
    if share > WAIT_SHARE and workers == 0:
        advice.append("Reading happens between the steps. Let workers read ahead: --set loop.workers=2.")
    elif share > WAIT_SHARE and reading["read"] > reading["decode"]:
        advice.append("The disk is the limit. Put the store on a faster disk, or cut more regions per scan.")
    elif share > WAIT_SHARE:
        busy = sum(reading.values()) / max(1e-9, sum(parts.values()) - parts["wait"])
        advice.append(
            f"Unpacking is the limit. Use at least {int(busy) + 1} workers: --set loop.workers={int(busy) + 1}."
        )
    if parts["views"] > 0.25 * sum(parts.values()):
        advice.append("Views take a quarter of the step or more. Lower chances of rotation and of augmentation.")
    return advice or ["The data path keeps up: a step is as fast as the network."]
