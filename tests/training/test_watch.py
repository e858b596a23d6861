"""The watch over a pretraining: an alarm when it collapses, silence when not, the same after a restart."""

from pathlib import Path

import torch
from torch import Tensor

from medssl.config import LoopConfig, OptimConfig
from medssl.encoders.build import build_encoder, describe
from medssl.encoders.weights import encoder_record
from medssl.loading.plan import BatchPlan
from medssl.pretext.task import PretextTask, Step
from medssl.progress import Silent
from medssl.runs.run import Run
from medssl.training.candidates import EncoderCandidates
from medssl.training.fabric import start_fabric
from medssl.training.loop import train
from medssl.training.trainee import Training
from medssl.training.watch import CollapseWatch
from medssl.views.region import Region

PATCH = (16, 16, 16)
LOOP = LoopConfig(steps=40, batch_size=2, log_every=1, checkpoint_every=20, diagnose_every=10, devices=1, workers=0)


class Pulled(PretextTask):
    """Pulls all features to one point (a collapse by design), or reconstructs (healthy)."""

    name, family = "pulled", "test"

    def __init__(self, *, collapses: bool) -> None:
        torch.manual_seed(0)
        super().__init__(build_encoder(describe("dynunet", preset="tiny", patch=PATCH)), None)
        self.decoder = self.encoder.make_decoder(1)
        self.collapses = collapses

    def views(self, region: Region) -> dict[str, Tensor]:
        return {"image": region.crop("patch")}

    def forward(self, views: dict[str, Tensor]) -> Step:
        pyramid = self.encoder(views["image"])
        guess = self.decoder(pyramid, views["image"])
        target = torch.zeros_like(guess) if self.collapses else views["image"]
        energy = (guess - target).square().flatten(1).mean(1)
        pooled = torch.cat([level.flatten(2).mean(2) for level in pyramid], dim=1)
        if self.collapses:
            energy = energy + sum((level - 1).square().flatten(1).mean(1) for level in pyramid)
        return Step(loss=energy.mean(), energy=energy.detach(), embeddings=pooled.detach())


def pretrained(folder: Path, scans, *, collapses: bool, select: str = "last") -> tuple[PretextTask, Run]:
    task = Pulled(collapses=collapses)
    plan = BatchPlan(scans, task.crops(PATCH), batch_size=2, seed=0)
    run = Run.create(folder, kind="pretrain", config={})
    watch = CollapseWatch(task, scans, patch=PATCH, seed=0, every=LOOP.diagnose_every)
    candidates = EncoderCandidates(task, select=select)
    optim = OptimConfig(lr=1e-1 if collapses else 1e-2, weight_decay=0.0)
    training = Training(task, plan, optim, LOOP, watch=watch, candidates=candidates)
    train(training, fabric=start_fabric(LOOP), run=run, progress=Silent())
    candidates.save_best(run, metadata={})
    return task, run


def test_collapse_watch_names_collapse_only(tmp_path, ball_scans):
    _, collapsed = pretrained(tmp_path / "collapsed", ball_scans, collapses=True)
    _, healthy = pretrained(tmp_path / "healthy", ball_scans, collapses=False)
    assert collapsed.metadata["verdict"]["alarm"], collapsed.metadata["health"]
    assert "collapse" in collapsed.metadata["health"]
    assert not healthy.metadata["verdict"]["alarm"], healthy.metadata["health"]
    assert "collapse" in collapsed.paths.log.read_text()
    diagnosed = [line["step"] for line in healthy.metrics() if "diagnostics/dense_rank" in line]
    assert diagnosed == [0, 10, 20, 30, 40]


def test_collapse_watch_leaves_training_unchanged(tmp_path, ball_scans):
    watched, _ = pretrained(tmp_path / "watched", ball_scans, collapses=False)
    task = Pulled(collapses=False)
    plan = BatchPlan(ball_scans, task.crops(PATCH), batch_size=2, seed=0)
    run = Run.create(tmp_path / "alone", kind="pretrain", config={})
    optim = OptimConfig(lr=1e-2, weight_decay=0.0)
    train(Training(task, plan, optim, LOOP), fabric=start_fabric(LOOP), run=run, progress=Silent())
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name


def test_candidates_save_encoder_of_highest_rankme(tmp_path, ball_scans):
    _, run = pretrained(tmp_path / "run", ball_scans, collapses=False, select="rankme")
    ranks = {
        line["step"]: line["diagnostics/dense_rankme"] for line in run.metrics() if "diagnostics/dense_rankme" in line
    }
    best = max((step for step in ranks if step >= 10), key=lambda step: ranks[step])
    assert encoder_record(run.folder).metadata["step"] == best


def test_should_observe_enough_batches_between_evaluations(ball_scans):
    watch = CollapseWatch(Pulled(collapses=False), ball_scans, patch=PATCH, seed=0, every="auto")
    heard = [step for step in range(1, 1001) if watch.should_observe(step, 1000)]
    between = [step for step in heard if 50 < step <= 100]  # a diagnosis every 50 steps
    assert 16 <= len(between) < 32
    short = [step for step in range(1, 41) if watch.should_observe(step, 40)]
    assert short == list(range(1, 41))


def test_checkpoint_carries_history_of_watch(tmp_path, ball_scans):
    task, run = pretrained(tmp_path / "run", ball_scans, collapses=False)
    state = torch.load(run.paths.checkpoint, weights_only=True)["watch"]
    again = CollapseWatch(task, ball_scans, patch=PATCH, seed=0, every=10)
    again.load_state_dict(state)
    assert again.state_dict()["history"] == state["history"]
    assert len(state["history"]) == 5
