"""A pretraining tried for a few steps, to say what the whole would take before it is started."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from medssl.config import PretrainConfig
from medssl.plugins.exits import exits_are_errors
from medssl.shapes import Shape3D
from medssl.training.automatic import chosen_values
from medssl.training.fabric import start_fabric
from medssl.training.preparation import prepare
from medssl.training.timing import time_steps

TIMED_STEPS = 5


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps showed.

    views: name to shape, as (B, C, D, H, W). checkpoint_mb: parameters with two moments of the optimiser. auto: what
    each setting that is "auto" came to, with the reason.
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


def rehearse(config: PretrainConfig) -> Rehearsal:
    """Run a few steps of `config` and throw the result away; nothing is written.

    Raises what `pretrain` raises before its first step.
    """
    prepared = prepare(config)
    scans, task = prepared.scans, prepared.task
    fabric = start_fabric(config.loop)
    with exits_are_errors(prepared.loaded.origin):
        timed = time_steps(prepared.plan, task, config=config, fabric=fabric, steps=TIMED_STEPS, warm_up=1)
    seconds = timed.step_ms / 1e3
    parameters = sum(p.numel() for p in task.parameters())
    on_gpu = fabric.device.type == "cuda"
    return Rehearsal(
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
