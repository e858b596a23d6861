"""Every task, with what keeps it from collapsing switched off, is named by the watch; with it on, there is silence.

Tasks that have nothing to switch off are given what goes wrong with them in practice: answers that no picture tells, a
code that costs too much, a learning rate a thousand times too large.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from joint_world import region, store_phantoms
from small_world import SmallEncoder
from torch import Tensor, nn

from medssl.diagnostics.monitor import CollapseMonitor
from medssl.diagnostics.verdict import Verdict
from medssl.plugins import list_tasks, load_task, task_config
from medssl.pretext.task import PretextTask
from medssl_tasks import pseudo_segmentation
from medssl_tasks.denoising import Denoising

SCANS, BATCHES, STEPS, EVERY = 8, 3, 30, 5
LR = 3e-3
HEAD = {"hidden": 32, "features": 16}
SMALL = {**HEAD, "small_crops": 0, "frozen_share": 0.0}

Break = Callable[[PretextTask, pytest.MonkeyPatch], None]
Views = dict[str, Tensor]


def nothing(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    """The settings alone switch it off."""


@dataclass(frozen=True)
class Case:
    """healthy: settings of a small but sound task. off: settings and `breaks` that take away what keeps it sound."""

    names: tuple[str, ...]
    healthy: dict[str, Any] = field(default_factory=dict)
    off: dict[str, Any] = field(default_factory=dict)
    breaks: Break = nothing
    lr: float = LR


def only_agreement(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    """The denominators of contrastive losses are gone: what is left pulls everything together."""
    patch.setattr("medssl_tasks.simclr.nt_xent", lambda a, b, **_: -(a * b).sum(dim=1).mean() / 0.2)
    patch.setattr("medssl_tasks.moco.queue_contrast", lambda q, k, *_, **__: -(q * k).sum(dim=1).mean() / 0.2)


def no_predictor(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    task.predict = nn.Identity()


def no_equal_shares(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("medssl_tasks.swav.codes", lambda scores, **_: torch.softmax(scores / 0.01, dim=1))


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

    def follow(self, student: nn.Module, momentum: float) -> None:
        """It is the student."""


def no_teacher(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    task.teacher = Itself(task.encoder)
    patch.setattr("medssl_tasks.jepa.normalised", lambda features: features.float())


def untold(*names: str) -> Break:
    """The answers are those of other samples: no picture tells them."""

    def wrong(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
        made, draw = task.views, torch.Generator().manual_seed(0)

        def views(region: Any) -> Views:
            out = made(region)
            for name in names:
                out[name] = out[name][torch.randperm(len(out[name]), generator=draw)]
            return out

        patch.setattr(task, "views", views)

    return wrong


def slabs_in_any_order(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    made, draw = task.views, torch.Generator().manual_seed(0)

    def views(region: Any) -> Views:
        out = made(region)
        slabs = [row[torch.randperm(len(row), generator=draw)] for row in out["slabs"]]
        return out | {"slabs": torch.stack(slabs)}

    patch.setattr(task, "views", views)


def nothing_forged(task: PretextTask, patch: pytest.MonkeyPatch) -> None:
    made = task.views
    patch.setattr(task, "views", lambda region: made(region) | {"hidden": torch.zeros_like(made(region)["hidden"])})


COLLAPSE = ("complete collapse", "dimensional collapse")
SILLY = 3.0
CASES = {
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
    "deepercluster": Case(("one prototype", *COLLAPSE), {**HEAD, "clusters": 4, "memory": 64}, {}, one_cluster),
    "barlow-twins": Case(("dimensional collapse",), HEAD, {"off_weight": 1e-9}),
    "vicreg": Case(("complete collapse",), HEAD, {"variance": 0.0, "covariance": 0.0}),
    "vicreg without covariance": Case(("dimensional collapse",), HEAD, {"covariance": 0.0}),
    "jepa": Case(COLLAPSE, {"width": 16, "depth": 1}, {}, no_teacher),
    "vae": Case(("posterior collapse",), {}, {"beta": 1000.0}),
    "sparse-coding": Case(("dead dictionary",), {}, {"sparsity": 100.0}),
    "adversarial": Case(("constant answer",), {"width": 4}, {}, nothing_forged),
    "patch-context": Case(("constant answer",), {}, {}, untold("middle")),
    "jigsaw": Case(("constant answer",), {"orders": 8, "grid": (1, 1, 2)}, {}, untold("order")),
    "rotation": Case(("constant answer",), {}, {}, untold("turn")),
    "slice-order": Case(("constant answer",), {"slabs": 3}, {}, slabs_in_any_order),
    "masked-volume": Case(("diverging norm", *COLLAPSE), {}, {}, lr=SILLY),
    "denoising": Case(("diverging norm", *COLLAPSE), {}, {}, lr=SILLY),
    "colorization": Case(("diverging norm", *COLLAPSE), {}, {}, lr=SILLY),
    "pseudo-segmentation": Case(("one prototype", *COLLAPSE), {"clusters": 6}, {}, one_tissue),
    "combine": Case(
        ("complete collapse",),
        {"tasks": ({"name": "vicreg", "options": HEAD}, {"name": "denoising"})},
        {"tasks": ({"name": "vicreg", "options": {**HEAD, "variance": 0.0, "covariance": 0.0}}, {"name": "denoising"})},
    ),
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return store_phantoms(tmp_path_factory.mktemp("store"), SCANS)


def task_of(case: str, settings: dict[str, Any]) -> PretextTask:
    cls = load_task(case.split()[0]).cls
    torch.manual_seed(0)
    return cls(SmallEncoder(), task_config(cls, settings))


def verdicts(task: PretextTask, scans: list, *, lr: float) -> list[Verdict]:
    """What the watch says before training and every few steps of it."""
    batches = [task.views(region(task, scans, step=step)) for step in range(BATCHES)]
    images = fixed_images(scans)
    monitor = CollapseMonitor()
    optimiser = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    found = [monitor.evaluate(task.exported_encoder(), images).verdict]
    for step in range(STEPS):
        optimiser.zero_grad(set_to_none=True)
        out = task(batches[step % BATCHES])
        out.loss.backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimiser.step()
        task.after_step(step, STEPS)
        monitor.observe(out)
        if (step + 1) % EVERY == 0:
            found.append(monitor.evaluate(task.exported_encoder(), images).verdict)
    return found


def fixed_images(scans: list) -> Tensor:
    """Plain patches, the same for every task."""
    plain = Denoising(SmallEncoder(), Denoising.Config(geometry={"probability": 0.0, "flip": (0, 0, 0)}))
    return region(plain, scans, seed=9).crop("patch")


@pytest.mark.parametrize("case", CASES)
def test_with_what_keeps_it_sound_there_is_silence(case, scans):
    alarms = [str(v) for v in verdicts(task_of(case, CASES[case].healthy), scans, lr=LR) if v.alarm]
    assert not alarms


@pytest.mark.parametrize("case", CASES)
def test_without_it_the_failure_is_named(case, scans, monkeypatch):
    settings = CASES[case]
    task = task_of(case, {**settings.healthy, **settings.off})
    settings.breaks(task, monkeypatch)
    found = verdicts(task, scans, lr=settings.lr)
    names = [verdict.name for verdict in found]
    assert names[0] == "first look"
    assert any(verdict.name in settings.names for verdict in found if verdict.alarm), names


def test_every_task_that_ships_has_its_alarm():
    assert {case.split()[0] for case in CASES} == {entry.name for entry in list_tasks() if entry.built_in}
