"""Tasks that compare crops, on a small encoder and real regions of stored phantoms."""

from pathlib import Path

import torch
from small_world import SmallEncoder, phantoms
from torch import Tensor

from medssl.geometry import Volume, to_array_axes
from medssl.loading.loader import batch_at
from medssl.loading.plan import BatchPlan
from medssl.plugins import list_tasks, load_task
from medssl.store.policy import StorePolicy
from medssl.store.volumes import StoredVolume, write_volume
from medssl.views.region import Region

PATCH = (16, 20, 24)
# What makes a task small and quick, where it has such a setting.
SMALL = {
    "hidden": 32, "features": 16, "bottleneck": 8, "local_points": 16, "small_crops": 2, "prototypes": 8, "queue": 20,
    "frozen_fraction": 0.0, "clusters": 4, "memory": 24, "recluster_every": 2, "width": 16, "depth": 1,
}  # fmt: skip
OTHERWISE = {"dino": {"prototypes": 16}}
# Settings beside SMALL that change what is computed.
VARIANTS = {
    "simclr with a decoder": {"local_from": "decoder"},
    "simclr without points": {"local_weight": 0.0},
    "simclr with batch norm": {"norm": "batch"},
    "moco without queue": {"queue": 0},
    "swav without queue": {"prototypes": 4, "queue": 0, "frozen_fraction": 0.02},
    "deepercluster in groups": {"groups": 2},
    "dino with masks": {"masked_weight": 1.0},
}
# Compares no embeddings of the batch, but its teacher is a state as that of byol is.
WITH_A_TEACHER = ("jepa",)


def small_settings(cls) -> dict:
    """Those of SMALL that the task has."""
    return {name: SMALL[name] for name in SMALL if name in cls.Config.model_fields} | OTHERWISE.get(cls.name, {})


def joint_tasks() -> dict:
    """Every task that ships and compares across the batch, by name."""
    shipped = {entry.name: load_task(entry.name).cls for entry in list_tasks() if entry.built_in}
    return {
        name: cls for name, cls in shipped.items() if {"embed", "compare"} <= set(dir(cls)) or name in WITH_A_TEACHER
    }


TASKS = joint_tasks()
HEAD = {"hidden": 32, "features": 16}
# By name of the case, which begins with that of the task: (task, settings)
CASES = {name: (cls, small_settings(cls)) for name, cls in TASKS.items()} | {
    case: (TASKS[case.split()[0]], {**small_settings(TASKS[case.split()[0]]), **changes})
    for case, changes in VARIANTS.items()
}
# Of a combination, each part's loss is divided by its trivial one: here one of the batch and a fixed one.
COMBINED = {
    "combine": (
        load_task("combine").cls,
        {
            "tasks": [
                {"name": "masked-volume", "options": {"block": 4}},
                {"name": "moco", "options": {**HEAD, "queue": 20}},
            ]
        },
    )
}


def make(case: str, *, seed: int = 0, **changes):
    """The task of a case over a fresh encoder."""
    task, settings = {**CASES, **COMBINED}[case]
    torch.manual_seed(seed)
    return task(SmallEncoder(), task.Config(**{**settings, **changes}))


def store_phantoms(folder: Path, count: int) -> list[StoredVolume]:
    """Stored scans of unequal edges."""
    volumes = phantoms(count, (30, 33, 36)) * 200 + 500
    affine = torch.diag(torch.tensor([1.0, 1.0, 1.5, 1.0])).double().numpy()
    return [
        write_volume(
            folder,
            f"scan{number}",
            Volume(to_array_axes(volume[0].numpy()).round().astype("int16"), affine),
            modality="MR",
            label=None,
            policy=StorePolicy(),
        )
        for number, volume in enumerate(volumes)
    ]


def region(task, scans: list[StoredVolume], *, step: int = 0, seed: int = 3) -> Region:
    """One sample of every scan, as training would read it at `step`."""
    plan = BatchPlan(scans, task.crops(PATCH), batch_size=len(scans), seed=seed)
    return Region(batch_at(plan, step), device=torch.device("cpu"), seed=seed)


def in_double(views: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: view.double() if view.is_floating_point() else view for name, view in views.items()}


def gradient(task) -> Tensor:
    """All gradients in one vector; parameters without one count as zeros."""
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in task.parameters() if p.requires_grad]
    )


def take_step(task, views, optimizer, *, step: int, total: int) -> float:
    """What the host does in one step."""
    optimizer.zero_grad(set_to_none=True)
    loss = task(views).loss
    loss.backward()
    optimizer.step()
    task.after_step(step, total)
    return float(loss.detach())


def adam(task, lr: float = 3e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=lr)
