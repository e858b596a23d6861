"""Every task, with what keeps it from collapsing switched off, is named by the watch; with it on, there is silence.

Tasks that have nothing to switch off are given what goes wrong with them in practice: answers that no picture tells, a
code that costs too much, a learning rate a thousand times too large.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from joint_world import store_phantoms
from small_world import SmallEncoder
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.diagnostics.monitor import CollapseMonitor
from medssl.diagnostics.verdict import Verdict
from medssl.loading.crops import Crop
from medssl.loading.loader import batch_at
from medssl.loading.plan import BatchPlan
from medssl.plugins import list_tasks, load_task, task_config
from medssl.pretext.task import PretextTask
from medssl.store.volumes import StoredVolume
from medssl.views.region import Region
from medssl_tasks import pseudo_segmentation

PATCH = (16, 16, 16)
SCANS, BATCHES, STEPS, EVERY = 8, 3, 25, 5
LR = 3e-3
HEAD = {"hidden": 32, "features": 16}
SMALL = {**HEAD, "small_crops": 0, "frozen_fraction": 0.0}

Break = Callable[[PretextTask, pytest.MonkeyPatch], None]
Views = dict[str, Tensor]


def nothing(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    """The settings alone switch it off."""


@dataclass(frozen=True)
class Case:
    """healthy: settings of a small but sound task. off: settings and `breaks` that take away what keeps it sound.

    lr: learning rate of both; `silly` is that of the broken one where it is what goes wrong.
    """

    names: tuple[str, ...]
    healthy: dict[str, Any] = field(default_factory=dict)
    off: dict[str, Any] = field(default_factory=dict)
    breaks: Break = nothing
    lr: float = LR
    silly: float | None = None


def only_agreement(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    """The denominators of contrastive losses are gone: what is left pulls everything together."""
    patch.setattr("medssl_tasks.simclr.nt_xent", lambda a, b, **_: -(a * b).sum(dim=1).mean() / 0.2)
    patch.setattr("medssl_tasks.moco.queue_contrast", lambda q, k, *_, **__: -(q * k).sum(dim=1).mean() / 0.2)


def no_predictor(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    task.predict = nn.Identity()


def no_equal_shares(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("medssl_tasks.swav.balanced_codes", lambda scores, **_: torch.softmax(scores / 0.01, dim=1))


def one_cluster(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(task, "_label", lambda vectors: torch.zeros(len(vectors), dtype=torch.int64))


def one_tissue(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    far = torch.full_like(task.centroids, 1e3).index_fill_(0, torch.tensor([0]), 0.0)
    patch.setattr(pseudo_segmentation, "euclidean_kmeans", lambda vectors, count, *, iterations: far)


class Itself(nn.Module):
    """In the place of a teacher: the student, with gradient."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.held = [module]  # not registered twice

    @property
    def module(self) -> nn.Module:
        return self.held[0]

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)

    def update(self, student: nn.Module, momentum: float) -> None:
        """It is the student."""


def no_teacher(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    """The targets are the student's own, and follow the prediction."""
    task.teacher = Itself(task.encoder)

    def normalised(features: Tensor) -> Tensor:
        last = features.movedim(1, -1)
        return F.layer_norm(last, last.shape[-1:]).movedim(-1, 1)

    patch.setattr("medssl_tasks.jepa.normalised", normalised)


def scrambled(task: PretextTask, patch: pytest.MonkeyPatch, *names: str, axis: int = 0) -> None:
    """These views come in another order at every step, so that nothing in a picture tells the answer."""
    forward, draw = task.forward, torch.Generator().manual_seed(0)

    def confused(views: Views) -> Any:
        order = torch.randperm(views[names[0]].shape[axis], generator=draw)
        return forward(views | {name: views[name].index_select(axis, order) for name in names})

    patch.setattr(task, "forward", confused)


def untold(*names: str, axis: int = 0) -> Break:
    """`scrambled`, for these views."""
    return lambda task, patch: scrambled(task, patch, *names, axis=axis)


def answered_by_chance(name: str, count: int) -> Break:
    """The answer, one of `count`, is drawn anew at every step: no picture tells it."""

    def confuse(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
        forward, draw = task.forward, torch.Generator().manual_seed(0)
        patch.setattr(
            task,
            "forward",
            lambda views: forward(views | {name: torch.randint(0, count, views[name].shape, generator=draw)}),
        )

    return confuse


def nothing_forged(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    """A forger as good as it can get: the critic has nothing to tell apart."""
    forward = task.forward
    patch.setattr(task, "forward", lambda views: forward(views | {"hidden": torch.zeros_like(views["hidden"])}))


def tiles_from_anywhere(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    """Tiles lose their places before they are shuffled, and orders come evenly: neither picture nor habit tells one."""
    untold("tiles", axis=1)(task, patch)
    answered_by_chance("order", 8)(task, patch)


COLLAPSE = ("complete collapse", "dimensional collapse")
SILLY = 3.0
# What goes wrong with any task: a learning rate that is far too large.
ANY_TASK = {e.name: Case(("diverging loss",), {}, {}, silly=SILLY) for e in list_tasks() if e.built_in}
CASES = ANY_TASK | {
    "simclr": Case(COLLAPSE, {**HEAD, "local_weight": 0.0}, {}, only_agreement),
    "moco": Case(COLLAPSE, {**HEAD, "queue": 32}, {"momentum": 0.0, "norm": "layer"}, only_agreement),
    "byol": Case(COLLAPSE, HEAD, {"momentum": 0.0, "norm": "layer"}, no_predictor),
    "simsiam": Case(COLLAPSE, {**HEAD, "bottleneck": 8}, {"norm": "layer"}, no_predictor),
    "dino": Case(
        ("one prototype", *COLLAPSE), {**SMALL, "prototypes": 16}, {"centring": False, "momentum": 0.0, "norm": "layer"}
    ),
    "dino with a lukewarm teacher": Case(
        ("uniform teacher",), {**SMALL, "prototypes": 16, "masked_weight": 1.0}, {"teacher_temperature": 1.0}
    ),
    "swav": Case(
        ("one prototype", *COLLAPSE), {**SMALL, "prototypes": 8, "queue": 0}, {"norm": "layer"}, no_equal_shares
    ),
    "deepercluster": Case(("one prototype",), {**HEAD, "clusters": 4, "memory": 512}, {}, one_cluster),
    "barlow-twins": Case(
        ("dimensional collapse",), {"hidden": 32, "features": 32}, {"off_diagonal_weight": 1e-9}, lr=3e-2
    ),
    "vicreg": Case(("complete collapse",), HEAD, {"variance_weight": 0.0, "covariance_weight": 0.0}),
    "vicreg without covariance": Case(("dimensional collapse",), HEAD, {"covariance_weight": 0.0}, lr=1e-2),
    "jepa": Case(COLLAPSE, {"width": 16, "depth": 1}, {}, no_teacher, lr=1e-2),
    "vae": Case(("posterior collapse",), {}, {"beta": 1000.0}),
    "sparse-coding": Case(("dead dictionary",), {}, {"sparsity": 100.0}),
    "adversarial": Case(("constant answer",), {"width": 4}, {}, nothing_forged),
    "patch-context": Case(("constant answer",), {}, {}, untold("middle", "scored")),
    "jigsaw": Case(("constant answer",), {"permutations": 8, "grid": (1, 2, 2)}, {}, tiles_from_anywhere),
    "rotation": Case(("constant answer",), {}, {}, answered_by_chance("turn", 24)),
    "slice-order": Case(("constant answer",), {"slabs": 3}, {}, untold("slabs", axis=1)),
    "pseudo-segmentation": Case(("one prototype", *COLLAPSE), {"clusters": 6}, {}, one_tissue),
    "combine": Case(
        ("complete collapse",),
        {"tasks": ({"name": "vicreg", "options": HEAD}, {"name": "denoising"})},
        {
            "tasks": (
                {"name": "vicreg", "options": {**HEAD, "variance_weight": 0.0, "covariance_weight": 0.0}},
                {"name": "denoising"},
            )
        },
    ),
    "combine with a second part that collapses": Case(
        ("complete collapse",),
        {"tasks": ({"name": "rotation"}, {"name": "vicreg", "options": HEAD})},
        {
            "tasks": (
                {"name": "rotation"},
                {"name": "vicreg", "options": {**HEAD, "variance_weight": 0.0, "covariance_weight": 0.0}},
            )
        },
    ),
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return store_phantoms(tmp_path_factory.mktemp("store"), SCANS)


def task_of(case: str, settings: dict[str, Any]) -> PretextTask:
    cls = load_task(case.split()[0]).cls
    torch.manual_seed(0)
    return cls(SmallEncoder(), task_config(cls, settings))


def region_of(crops: Mapping[str, Crop], scans: list[StoredVolume], *, step: int = 0) -> Region:
    """One sample of every scan, as training would read it at `step`."""
    plan = BatchPlan(scans, crops, batch_size=len(scans), seed=3)
    return Region(batch_at(plan, step), device=torch.device("cpu"), seed=3)


def verdicts(task: PretextTask, scans: list[StoredVolume], *, lr: float) -> list[Verdict]:
    """What the watch says before training and every few steps of it."""
    batches = [task.views(region_of(task.crops(PATCH), scans, step=step)) for step in range(BATCHES)]
    images = region_of({"patch": Crop(size=PATCH)}, scans, step=9).crop("patch")
    monitor = CollapseMonitor()
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    found = [monitor.evaluate(task.exported_encoder(), images).verdict]
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        out = task(batches[step % BATCHES])
        out.loss.backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        task.after_step(step, STEPS)
        monitor.observe(out)
        if (step + 1) % EVERY == 0:
            found.append(monitor.evaluate(task.exported_encoder(), images).verdict)
    return found


@pytest.mark.parametrize("case", CASES)
def test_healthy_task_raises_no_alarm(case, scans):
    alarms = [str(v) for v in verdicts(task_of(case, CASES[case].healthy), scans, lr=CASES[case].lr) if v.alarm]
    assert not alarms


@pytest.mark.parametrize("case", CASES)
def test_broken_task_raises_named_alarm(case, scans, monkeypatch):
    settings = CASES[case]
    task = task_of(case, {**settings.healthy, **settings.off})
    settings.breaks(task, monkeypatch)
    found = verdicts(task, scans, lr=settings.silly or settings.lr)
    names = [verdict.name for verdict in found]
    assert names[0] == "first evaluation"
    assert any(verdict.name in settings.names for verdict in found if verdict.alarm), names


def test_every_shipped_task_has_an_alarm_case():
    assert {case.split()[0] for case in CASES} == {entry.name for entry in list_tasks() if entry.built_in}
