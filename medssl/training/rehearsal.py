"""A pretraining tried for a few steps, to say what the whole would take before it is started."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from medssl.archive.cohort import Cohort
from medssl.config import PretrainConfig
from medssl.plugins import load_task
from medssl.store.loader import RegionLoader
from medssl.training.automatic import chosen_values
from medssl.training.batch_gradient import backward, set_up_chunks
from medssl.training.loop import seed_step, start_fabric, worker_count
from medssl.training.optimisation import make_optimiser
from medssl.training.patch import choose_patch
from medssl.training.pretrain import build_task, make_plan, pretraining_scans
from medssl.views.region import Region

TIMED_STEPS = 5


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps showed.

    views: name to shape, as (B, C, D, H, W). checkpoint_mb: parameters with two moments of the optimiser. auto: what
    each setting that is "auto" came to, with the reason.
    """

    scans: int
    patch: tuple[int, int, int]
    encoder: str
    parameters: int
    views: Mapping[str, tuple[int, ...]]
    first_loss: float
    trivial: float | None
    seconds_per_step: float
    hours: float
    checkpoint_mb: float
    peak_gpu_gb: float | None
    auto: Mapping[str, str]


def rehearse(config: PretrainConfig) -> Rehearsal:
    """Run a few steps of `config` and throw the result away; nothing is written.

    Raises what `pretrain` raises before its first step.
    """
    loaded = load_task(str(config.task.get("name", "")), files=config.plugins)
    scans = pretraining_scans(Cohort.open(config.cohort), config.splits)
    patch = choose_patch(scans, config.patch)
    task = build_task(config, loaded, scans=scans, patch=patch)
    plan = make_plan(config, scans, task.crops(patch))
    fabric = start_fabric(config.loop)
    model, optimiser = fabric.setup(task, make_optimiser([(task, 1.0)], config.optim))
    set_up_chunks(task, model, chunk=config.gradient_cache)
    times, first = [], None
    with RegionLoader(plan, workers=worker_count(config.loop), first_step=0) as loader:
        for step, batch in zip(range(TIMED_STEPS + 1), loader, strict=False):
            started = time.perf_counter()
            region = Region.from_batch(batch, device=fabric.device, seed=config.loop.seed)
            seed_step(config.loop.seed, step, 0)
            with torch.no_grad():
                views = task.views(region)
            output = backward(model, views, fabric=fabric, chunk=config.gradient_cache)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            loss = float(output.loss.detach())  # waits for the device
            first = first or (loss, output.trivial, {name: tuple(view.shape) for name, view in views.items()})
            times.append(time.perf_counter() - started)
    seconds = sorted(times[1:])[TIMED_STEPS // 2]  # the first step warms up
    parameters = sum(p.numel() for p in task.parameters())
    on_gpu = fabric.device.type == "cuda"
    loss, trivial, shapes = first or (float("nan"), None, {})
    return Rehearsal(
        scans=len(scans),
        patch=patch,
        encoder=task.encoder.description.name,
        parameters=parameters,
        views=shapes,
        first_loss=loss,
        trivial=trivial,
        seconds_per_step=seconds,
        hours=seconds * config.loop.steps / 3600,
        checkpoint_mb=3 * 4 * parameters / 1e6,
        peak_gpu_gb=torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
        auto=chosen_values(config, task, scans=scans, patch=patch, fabric=fabric),
    )
