"""What `medssl bench` measures: a pretraining's own plan and task, for a few steps."""

from collections.abc import Sequence
from pathlib import Path

import torch

from medssl.archive.cohort import Cohort
from medssl.config import PretrainConfig
from medssl.plugins import load_task
from medssl.store.crops import Crop
from medssl.training.loop import worker_count
from medssl.training.patch import choose_patch
from medssl.training.pretrain import build_task, make_plan, pretraining_scans
from medssl.training.timing import StepTiming, time_steps


def benchmark(config: PretrainConfig, *, with_task: bool, steps: int, plugin_files: Sequence[Path] = ()) -> StepTiming:
    """Time the steps of this pretraining, or only its reading; nothing is written.

    Raises what `pretrain` raises before its first step, and DataError where a scan cannot be read.
    """
    scans = pretraining_scans(Cohort.open(config.cohort), config.splits)
    patch = choose_patch(scans, config.patch)
    task = None
    if with_task:
        loaded = load_task(str(config.task["name"]), files=[*config.plugins, *plugin_files])
        task = build_task(config, loaded, scans=scans, patch=patch)
    crops = {"patch": Crop(size=patch, flip=(0.0, 0.0, 0.5))} if task is None else task.crops(patch)
    plan = make_plan(config, scans, crops)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return time_steps(plan, task, optim=config.optim, workers=worker_count(config.loop), steps=steps, device=device)
