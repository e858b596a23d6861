"""Which encoder outlives a run, on trajectories made by hand, so that the right one is known."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medssl.diagnostics.monitor import CollapseMonitor
from medssl.diagnostics.selection import Candidate, choose_checkpoint
from medssl.encoders.build import build_encoder, describe
from medssl.encoders.encoder import Encoder, EncoderDescription
from medssl.encoders.weights import encoder_record, load_encoder
from medssl.pretext.task import PretextTask, Step
from medssl.runs.run import Run
from medssl.training.candidates import EncoderCandidates
from medssl.training.watch import CollapseWatch

PATCH = (16, 16, 16)
# Share of the coarsest level's channels that say something of their own at each look; the rest repeat the first ones.
# Step 30 is the best of those that compete: before training, everything is random and the rank is highest of all.
DISTINCT = {0: 1.0, 10: 0.15, 20: 0.2, 30: 0.9, 40: 0.25}
# Whether right pairs have less energy than wrong ones: most clearly at step 20.
SHIFT = {0: 0.0, 10: 0.3, 20: 2.0, 30: 0.4, 40: 0.5}


class ByHand(PretextTask):
    """A task whose encoder is set from outside."""

    name, family = "by-hand", "test"


def repeated(encoder: Encoder, share: float) -> Encoder:
    """A copy in which the last channels of the coarsest level are copies of its first `share`."""
    out = copy.deepcopy(encoder)
    last = [module for module in out.modules() if isinstance(module, nn.Conv3d)][-1]
    source = torch.arange(out.channels[-1]) % max(1, round(share * out.channels[-1]))
    with torch.no_grad():  # the norm behind it is fresh, and the same for all channels
        for parameter in last.parameters():
            parameter.copy_(parameter[source])
    return out


def energies(shift: float) -> Step:
    """Forty pairs of each kind, the wrong ones `shift` above the right ones."""
    right = torch.linspace(0, 1, 40)
    return Step(torch.tensor(1.0), right, right + shift)


def kept_step(folder: Path, scans, select: str) -> tuple[int, Tensor, Tensor]:
    """Step of the encoder that the watch keeps, its first weights, and those it should have."""
    torch.manual_seed(0)
    fresh = build_encoder(describe("dynunet", preset="tiny", patch=PATCH))
    task = ByHand(fresh, None)
    run = Run.create(folder, kind="pretrain", config={})
    watch = CollapseWatch(task, scans, patch=PATCH, seed=0, every=10)
    candidates = EncoderCandidates(task, select=select)
    watch._images = views_by_hand()
    trajectory = {step: repeated(fresh, share) for step, share in DISTINCT.items()}
    for step, encoder in trajectory.items():
        task.encoder = encoder
        if step:
            watch.observe(energies(SHIFT[step]))
        diagnosis = watch.evaluate(step, run, device=torch.device("cpu"))
        assert not diagnosis.verdict.alarm
        candidates.add(step, diagnosis, run)
    candidates.save_best(run, metadata={"step": 40})
    step = int(encoder_record(folder).metadata["step"])
    return step, _weights(load_encoder(folder)[0]), _weights(trajectory[step])


def _weights(encoder: Encoder) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in encoder.parameters()])


def views_by_hand() -> Tensor:
    """16 volumes that differ a lot, each twice with a little noise: (32, 1, D, H, W), the two of one in a row."""
    draw = torch.Generator().manual_seed(0)
    volumes = functional.interpolate(torch.randn(16, 1, 4, 4, 4, generator=draw), size=PATCH, mode="trilinear")
    return torch.stack([volumes + 0.02 * torch.randn(volumes.shape, generator=draw) for _ in range(2)], 1).flatten(0, 1)


@pytest.mark.parametrize(("select", "right"), [("last", 40), ("rankme", 30), ("lidar", 30), ("energy-gap", 20)])
def test_candidates_keep_the_best_encoder_of_each_rule(select, right, ball_scans, tmp_path):
    step, kept, expected = kept_step(tmp_path / "run", ball_scans, select)
    assert step == right
    assert torch.equal(kept, expected)


class Answers(Encoder):
    """Features by hand: the first numbers of an image tell the scan, the others the view."""

    def __init__(self, scan: float, view: float) -> None:
        super().__init__()
        self.description = EncoderDescription(name="answers")
        self.channels, self.strides = (16,), ((16, 16, 16),)
        self.scan, self.view = scan, view

    def forward(self, image: Tensor) -> list[Tensor]:
        values = image.flatten(1)[:, :16]
        return [torch.cat([values[:, :8] * self.scan, values[:, 8:] * self.view], dim=1)[..., None, None, None]]

    def make_decoder(self, out_channels: int):
        raise NotImplementedError


def pairs_of_views() -> Tensor:
    """12 scans of two views: eight numbers of the scan, the same in both with a little noise, and eight of the view."""
    draw = torch.Generator().manual_seed(0)
    scan = torch.randn(12, 1, 8, generator=draw) + 0.05 * torch.randn(12, 2, 8, generator=draw)
    view = torch.randn(12, 2, 8, generator=draw)
    images = torch.zeros(24, 1, *PATCH)
    images.view(24, -1)[:, :16] = torch.cat([scan, view], dim=2).view(24, 16)
    return images


def test_choose_checkpoint_lidar_prefers_features_of_scan():
    trajectory = {10: Answers(0.1, 1.0), 20: Answers(1.0, 0.05), 30: Answers(0.6, 1.0), 40: Answers(0.0, 1.0)}
    monitor, candidates = CollapseMonitor(views_per_scan=2), []
    for step, encoder in trajectory.items():
        candidates.append(Candidate(step, monitor.evaluate(encoder, pairs_of_views()).metrics))
    assert choose_checkpoint(candidates, select="lidar").step == 20
    assert choose_checkpoint(candidates, select="rankme").step == 30
    # nothing but the view: the guard says 0, where whitening alone would find full rank
    assert candidates[-1].metrics["diagnostics/pooled_lidar"] == 0.0


def test_choose_checkpoint_falls_back_to_the_last():
    none = [Candidate(step, {"diagnostics/pooled_lidar": 0.0}) for step in (10, 20, 30)]
    choice = choose_checkpoint(none, select="lidar")
    assert choice.step == 30
    assert "none without an alarm has a 'diagnostics/pooled_lidar' to compare" in choice.reason
