"""A training for a few steps with a stopwatch: wait, copy, views, forward, backward, optimiser."""

import math
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric

from medssl.config import PretrainConfig
from medssl.loading.loader import RegionLoader
from medssl.loading.plan import BatchPlan
from medssl.loading.pool import PREFETCH_FACTOR
from medssl.pretext.task import PretextTask, Step
from medssl.training.fabric import worker_count
from medssl.training.optimizer import make_optimizer
from medssl.training.step import backward, seed_step, set_up_chunks
from medssl.views.region import Region

# The first steps fill caches, start workers and let libraries choose their algorithms.
WARM_UP = 3


@dataclass(frozen=True)
class TimedSteps:
    """Timing of some steps, and what the first of them with a task showed.

    Attributes:
        parts_ms: Milliseconds per step, by part.
        first_loss: Of the first step; NaN without a task.
        trivial_loss: What the task calls trivial, where it does.
        views: Name to shape, (B, C, D, H, W) of images.
    """

    parts_ms: dict[str, float]
    first_loss: float = float("nan")
    trivial_loss: float | None = None
    views: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def step_ms(self) -> float:
        """All parts together."""
        return sum(self.parts_ms.values())


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

    def parts_ms(self, warm_up: int) -> dict[str, float]:
        """Median per part, without the first steps; of waiting the mean: workers that started together deliver
        together, so that one step waits for all of them and the next ones for none.
        """
        return {
            name: 1e3 * (statistics.mean if name == "wait" else statistics.median)(values[warm_up:] or values)
            for name, values in self.seconds.items()
        }


def time_steps(
    plan: BatchPlan,
    task: PretextTask | None,
    *,
    config: PretrainConfig,
    fabric: Fabric,
    steps: int,
    warm_up: int = WARM_UP,
) -> TimedSteps:
    """Train `task` as `config` says for some steps and throw the result away; without a task, only read and cut the
    plan's crops.

    With workers it takes more than `steps`: batches that they had prefetched at the start are not counted, and each
    worker delivers as many of those that are.

    Raises DataError where a scan cannot be read.
    """
    device, watch, first = fabric.device, Stopwatch(fabric.device), None
    train = _trainer(task, config, fabric, watch) if task else None
    workers = worker_count(config.loop)
    warm_up, steps = max(warm_up, PREFETCH_FACTOR * workers), math.ceil(steps / max(1, workers)) * max(1, workers)
    with RegionLoader(plan, workers=workers, first_step=0, device=device) as loader:
        batches = iter(loader)
        for step in range(steps + warm_up):
            with watch.part("wait"):
                batch = next(batches)
            with watch.part("copy"):
                region = Region(batch, device=device, seed=plan.seed)
            seed_step(plan.seed, step, 0)
            with watch.part("views"), torch.no_grad():
                views = task.views(region) if task else {name: region.crop(name) for name in region.crop_names}
            if train:
                output = train(views)
                first = first or (float(output.loss.detach()), output.trivial_loss, views)
    parts = watch.parts_ms(warm_up)
    if first is None:
        return TimedSteps(parts)
    loss, trivial, views = first
    return TimedSteps(parts, loss, trivial, {name: tuple(view.shape) for name, view in views.items()})


def _trainer(task: PretextTask, config: PretrainConfig, fabric: Fabric, watch: Stopwatch) -> Any:
    """The part of a step that learns, as in the loop, but without the schedule of the learning rate."""
    model, optimizer = fabric.setup(task, make_optimizer([(task, 1.0)], config.optim))
    set_up_chunks(task, model, chunk=config.gradient_cache)

    def train(views: dict[str, torch.Tensor]) -> Step:
        if config.gradient_cache:  # forward and backward alternate
            with watch.part("backward"):
                output = backward(model, views, fabric=fabric, chunk=config.gradient_cache)
        else:
            with watch.part("forward"):
                output = model(views)
            with watch.part("backward"):
                fabric.backward(output.loss)
        with watch.part("optimizer"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return output

    return train
