"""The loop: it learns, it continues as if it had not stopped, it says when it cannot go on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from killed_training import KillAt, KilledError
from torch import Tensor, nn

from medssl.config import LoopConfig, OptimConfig
from medssl.errors import CheckpointError, TrainingError
from medssl.loading.crops import Crop
from medssl.loading.plan import BatchPlan
from medssl.pretext.task import Step
from medssl.progress import Silent
from medssl.runs.ending import Terminated
from medssl.runs.run import Run
from medssl.training.fabric import start_fabric
from medssl.training.finite import MAX_SKIPPED_STEPS
from medssl.training.loop import train
from medssl.training.trainee import Training
from medssl.views.region import Region

PATCH = (8, 16, 12)
LOOP = LoopConfig(steps=12, batch_size=2, log_every=1, checkpoint_every=4, devices=1, workers=0)


class Denoise(nn.Module):
    """The smallest trainee with everything that has to survive a restart: weights, dropout, and a buffer that moves
    after each step.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Dropout(0.2), nn.Conv3d(4, 1, 3, padding=1))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("average", torch.zeros(4, 1, 3, 3, 3))

    def views(self, region: Region) -> dict[str, Tensor]:
        clean = region.crop("patch")
        return {"clean": clean, "noisy": clean + 0.5 * region.random.noise("noise", tuple(clean.shape[1:]))}

    def forward(self, views: dict[str, Tensor]) -> Step:
        error = (self.net(views["noisy"]) - views["clean"]).square().flatten(1).mean(1)
        return Step(
            loss=error.mean(), energy=error.detach(), pictures={"scan": views["clean"], "noisy": views["noisy"]}
        )

    def after_step(self, step: int, total: int) -> None:
        self.seen += 1
        self.average.lerp_(self.net[0].weight.detach(), 0.1)


def training_of(module: nn.Module, scans, loop: LoopConfig = LOOP, lr: float = 1e-2) -> Training:
    crop = Crop(size=PATCH, rotation_deg=(10.0, 0.0, 0.0), flip=(0.0, 0.0, 0.5), probability=0.5)
    plan = BatchPlan(scans, {"patch": crop}, batch_size=loop.batch_size, seed=loop.seed)
    return Training(module=module, plan=plan, optim=OptimConfig(lr=lr), loop=loop)


def run_in(folder: Path) -> Run:
    return Run.create(folder, kind="pretrain", config={})


def trained(folder: Path, scans) -> tuple[nn.Module, Run]:
    module, run = Denoise(), run_in(folder)
    train(training_of(module, scans), fabric=start_fabric(LOOP), run=run, progress=Silent())
    return module, run


def test_train_lowers_loss_and_writes_run(tmp_path, ball_scans):
    module, run = trained(tmp_path / "run", ball_scans)
    losses = [line["train/loss"] for line in run.metrics()]
    assert len(losses) == 12
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert float(module.seen) == 12
    assert {picture.step for picture in run.pictures()} == {1, 12}
    assert (run.paths.checkpoint).exists()


def test_resume_after_kill_gives_the_same_bits(tmp_path, ball_scans):
    whole, whole_run = trained(tmp_path / "whole", ball_scans)

    broken, run = Denoise(), run_in(tmp_path / "broken")
    with pytest.raises(KilledError):
        train(training_of(broken, ball_scans), fabric=start_fabric(LOOP), run=run, progress=KillAt(7))
    run.finish("failed")
    continued = Denoise()
    with torch.no_grad():
        continued.net[0].weight.fill_(9.0)  # what the checkpoint must overwrite
    run = Run.resume(tmp_path / "broken", at_step=4)
    train(training_of(continued, ball_scans), fabric=start_fabric(LOOP), run=run, progress=Silent(), resume=True)

    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name]), name
    shown = ("step", "train/loss", "train/lr", "train/grad_norm")
    assert [[line[k] for k in shown] for line in run.metrics()] == [
        [line[k] for k in shown] for line in whole_run.metrics()
    ]


class Steep(Denoise):
    """A loss whose gradient is beyond 16 bits at the scale that the scaler begins with."""

    def forward(self, views: dict[str, Tensor]) -> Step:
        step = super().forward(views)
        return Step(step.loss * 3e3, step.energy)


def test_resume_restores_loss_scale_under_16_mixed(tmp_path, ball_scans):
    short = LOOP.model_copy(update={"precision": "16-mixed"})

    def run_to_the_end(module: nn.Module, run: Run, **how: object) -> dict[str, Tensor]:
        train(training_of(module, ball_scans, short), fabric=start_fabric(short), run=run, progress=Silent(), **how)
        return torch.load(run.paths.checkpoint, weights_only=True)

    whole = run_to_the_end(Steep(), run_in(tmp_path / "whole"))
    assert 0 < whole["precision"]["scale"] < 2**16  # it was lowered, so that steps were left out
    run = run_in(tmp_path / "broken")
    with pytest.raises(KilledError):
        train(training_of(Steep(), ball_scans, short), fabric=start_fabric(short), run=run, progress=KillAt(7))
    run.finish("failed")
    continued = run_to_the_end(Steep(), Run.resume(tmp_path / "broken", at_step=4), resume=True)
    assert continued["precision"] == whole["precision"]
    for name, tensor in whole["module"].items():
        assert torch.equal(tensor, continued["module"][name]), name


class Overflows(Denoise):
    """Its loss and its gradient are infinite at some steps, as where an activation is beyond 16 bits."""

    def __init__(self, steps: Iterable[int]) -> None:
        super().__init__()
        self.steps = set(steps)

    def forward(self, views: dict[str, Tensor]) -> Step:
        step = super().forward(views)
        infinite = self.training and int(self.seen) + 1 in self.steps
        return Step(step.loss * torch.inf if infinite else step.loss, step.energy)


@pytest.mark.parametrize("log_every", [1, 100])
def test_finite_watch_forgives_skipped_step_under_16_mixed(tmp_path, ball_scans, log_every):
    """The scaler leaves the step out, so no weight is broken; whether the step is logged makes no difference."""
    loop = LOOP.model_copy(update={"precision": "16-mixed", "log_every": log_every})
    module, run = Overflows([6]), run_in(tmp_path / "run")
    train(training_of(module, ball_scans, loop), fabric=start_fabric(loop), run=run, progress=Silent())
    assert int(module.seen) == LOOP.steps
    assert all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())


@pytest.mark.parametrize("log_every", [1, 100])
def test_finite_watch_stops_after_too_many_skipped_steps(tmp_path, ball_scans, log_every):
    loop = LOOP.model_copy(update={"precision": "16-mixed", "log_every": log_every, "steps": 50})
    module, run = Overflows(range(1, 51)), run_in(tmp_path / "run")
    with pytest.raises(TrainingError, match=f"not finite at step {MAX_SKIPPED_STEPS + 1}"):
        train(training_of(module, ball_scans, loop), fabric=start_fabric(loop), run=run, progress=Silent())


@pytest.mark.parametrize(
    ("sent", "ends_with", "reason"),
    [(signal.SIGTERM, Terminated, "stopped by SIGTERM"), (signal.SIGINT, KeyboardInterrupt, "stopped by hand")],
)
def test_signal_saves_checkpoint_and_ends_run(tmp_path, ball_scans, sent, ends_with, reason):
    class SignalAt(Silent):
        def step(self, stage: str, done: int, total: int | None, note: str = "") -> None:
            if done == 6:
                os.kill(os.getpid(), sent)

    assert threading.current_thread() is threading.main_thread()
    module, run = Denoise(), run_in(tmp_path / "run")

    def body() -> None:
        with run.recording():
            train(training_of(module, ball_scans), fabric=start_fabric(LOOP), run=run, progress=SignalAt())

    with pytest.raises(ends_with):
        body()
    assert torch.load(run.paths.checkpoint, weights_only=True)["step"] == 6
    assert (run.status, run.record.reason) == ("killed", reason)


def test_heartbeat_is_sent_every_step(tmp_path, ball_scans, monkeypatch):
    beats = []
    monkeypatch.setattr(Run, "beat", lambda run: beats.append(1))
    seldom = LOOP.model_copy(update={"log_every": 100})
    train(
        training_of(Denoise(), ball_scans, seldom),
        fabric=start_fabric(seldom),
        run=run_in(tmp_path / "run"),
        progress=Silent(),
    )
    assert len(beats) >= LOOP.steps


def test_finite_watch_stops_at_nan_loss(tmp_path, ball_scans):
    class Exploding(Denoise):
        def forward(self, views: dict[str, Tensor]) -> Step:
            step = super().forward(views)
            return Step(loss=step.loss * float("nan"), energy=step.energy)

    with pytest.raises(TrainingError, match="not finite at step 1"):
        train(
            training_of(Exploding(), ball_scans),
            fabric=start_fabric(LOOP),
            run=run_in(tmp_path / "r"),
            progress=Silent(),
        )


class BreaksAt(Denoise):
    """Its loss, or only its gradient, is no number at one step; then it goes on."""

    def __init__(self, step: int, *, only_gradient: bool) -> None:
        super().__init__()
        self.step, self.only_gradient = step, only_gradient

    def forward(self, views: dict[str, Tensor]) -> Step:
        step = super().forward(views)
        if self.training and int(self.seen) + 1 == self.step:
            root = (self.net[0].weight * 0).sum().sqrt()  # 0, with an infinite slope
            return Step(step.loss + root if self.only_gradient else step.loss * float("nan"), step.energy)
        return step


@pytest.mark.parametrize("only_gradient", [True, False])
@pytest.mark.parametrize("signalled", [True, False])
def test_finite_watch_keeps_broken_weights_from_checkpoint(tmp_path, ball_scans, monkeypatch, only_gradient, signalled):
    module, run = BreaksAt(6, only_gradient=only_gradient), run_in(tmp_path / "run")
    seldom = LOOP.model_copy(update={"log_every": 100})
    if signalled:
        after = module.after_step

        def stop_after(step: int, total: int) -> None:
            after(step, total)
            if step + 1 == 7:  # between two checkpoints and two lines of metrics
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(module, "after_step", stop_after)
    with pytest.raises(TrainingError, match="not finite at step 6"):
        train(training_of(module, ball_scans, seldom), fabric=start_fabric(seldom), run=run, progress=Silent())
    state = torch.load(run.paths.checkpoint, weights_only=True)
    assert state["step"] == 4
    assert all(bool(tensor.isfinite().all()) for tensor in state["module"].values())
    assert not all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())


def test_checkpoint_of_another_network_is_refused(tmp_path, ball_scans):
    _, run = trained(tmp_path / "run", ball_scans)

    class Wider(Denoise):
        def __init__(self) -> None:
            super().__init__()
            self.net[0] = nn.Conv3d(1, 8, 3, padding=1)

    with pytest.raises(CheckpointError, match="does not fit"):
        train(training_of(Wider(), ball_scans), fabric=start_fabric(LOOP), run=run, progress=Silent(), resume=True)


def test_checkpoint_damaged_is_refused_without_unpickling(tmp_path, ball_scans):
    _, run = trained(tmp_path / "run", ball_scans)
    path = run.paths.checkpoint
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(training_of(Denoise(), ball_scans), fabric=start_fabric(LOOP), run=run, progress=Silent(), resume=True)


def test_clip_norm_zero_clips_nothing(tmp_path, ball_scans):
    losses = []
    for name, norm in (("none", 0.0), ("huge", 1e9)):
        module, run = Denoise(), run_in(tmp_path / name)
        training = training_of(module, ball_scans)
        training = Training(module, training.plan, OptimConfig(lr=1e-2, clip_norm=norm), LOOP)
        train(training, fabric=start_fabric(LOOP), run=run, progress=Silent())
        losses.append([line["train/loss"] for line in run.metrics()])
    assert losses[0] == losses[1]


LEAVES = """
import atexit, sys
import torch.distributed as dist
from medssl.config import LoopConfig
from medssl.training.fabric import start_fabric
atexit.register(lambda: print("in a group at the very end:", dist.is_initialized()))
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
start_fabric(LoopConfig(steps=1, devices=1))
print("in a group while training:", dist.is_initialized())
"""


def test_process_group_is_left_before_exit(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, str(tmp_path / "store")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.splitlines()[-2:]
    assert said == ["in a group while training: True", "in a group at the very end: False"]
