"""Tasks that compare crops, on a small encoder and real regions of stored phantoms."""

from pathlib import Path

import torch
from small_world import SmallEncoder, phantoms
from torch import Tensor

from medssl.geometry import Volume, to_array_axes
from medssl.loading.loader import batch_at
from medssl.loading.plan import BatchPlan
from medssl.store.policy import StorePolicy
from medssl.store.volumes import StoredVolume, write_volume
from medssl.views.region import Region
from medssl_tasks.barlow_twins import BarlowTwins
from medssl_tasks.byol import BYOL
from medssl_tasks.combine import Combine
from medssl_tasks.deepercluster import DeeperCluster
from medssl_tasks.dino import DINO
from medssl_tasks.jepa import JEPA
from medssl_tasks.moco import MoCo
from medssl_tasks.simclr import SimCLR
from medssl_tasks.simsiam import SimSiam
from medssl_tasks.swav import SwAV
from medssl_tasks.vicreg import VICReg

PATCH = (16, 20, 24)
HEAD = {"hidden": 32, "features": 16}
CROPS = {"small_crops": 2}

# Every task, and every setting that changes what is computed: (task, settings)
CASES = {
    "simclr": (SimCLR, {**HEAD, "local_points": 16}),
    "simclr with a decoder": (SimCLR, {**HEAD, "local_points": 16, "local_from": "decoder"}),
    "simclr without points": (SimCLR, {**HEAD, "local_weight": 0.0}),
    "simclr with batch norm": (SimCLR, {**HEAD, "local_points": 16, "norm": "batch"}),
    "moco": (MoCo, {**HEAD, "queue": 20}),
    "moco without queue": (MoCo, {**HEAD, "queue": 0}),
    "byol": (BYOL, HEAD),
    "simsiam": (SimSiam, {**HEAD, "bottleneck": 8}),
    "barlow-twins": (BarlowTwins, HEAD),
    "vicreg": (VICReg, HEAD),
    "swav": (SwAV, {**HEAD, **CROPS, "prototypes": 8, "queue": 20, "frozen_fraction": 0.0}),
    "swav without queue": (SwAV, {**HEAD, **CROPS, "prototypes": 4, "queue": 0}),
    "deepercluster": (DeeperCluster, {**HEAD, "clusters": 4, "memory": 24, "recluster_every": 2}),
    "deepercluster in groups": (
        DeeperCluster,
        {**HEAD, "clusters": 4, "groups": 2, "memory": 24, "recluster_every": 2},
    ),
    "dino": (DINO, {**HEAD, **CROPS, "prototypes": 16, "frozen_fraction": 0.0}),
    "dino with masks": (DINO, {**HEAD, **CROPS, "prototypes": 16, "masked_weight": 1.0, "frozen_fraction": 0.0}),
    "jepa": (JEPA, {"width": 16, "depth": 1}),
}
# Of a combination, each part's loss is divided by its trivial one: here one of the batch and a fixed one.
COMBINED = {
    "combine": (
        Combine,
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


def take_step(task, views, optimiser, *, step: int, total: int) -> float:
    """What the host does in one step."""
    optimiser.zero_grad(set_to_none=True)
    loss = task(views).loss
    loss.backward()
    optimiser.step()
    task.after_step(step, total)
    return float(loss.detach())


def adam(task, lr: float = 3e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=lr)
