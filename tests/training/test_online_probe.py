"""The probe beside a pretraining: it reads a few labels, and nothing of what is learnt depends on them."""

import json
from pathlib import Path

import pytest
import torch
from killed_training import KillAt, KilledError

from medssl.cohort.cohort import Cohort
from medssl.config import LoopConfig, PretrainConfig, ProbeConfig
from medssl.downstream.labelled import training_scans
from medssl.encoders.weights import load_encoder
from medssl.errors import ConfigError
from medssl.progress import Silent
from medssl.runs.run import Run
from medssl.tracking.card import run_card
from medssl.training.online_probe import online_probe
from medssl.training.preparation import prepare
from medssl.training.pretrain import pretrain

PATCH = (16, 16, 16)
STEPS = 8
DICE = ("probe/dice", "probe/dice_1", "probe/dice_2", "probe/accuracy")


class Said(Silent):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def config_of(cohort: Path, *, num_labelled: int) -> PretrainConfig:
    return PretrainConfig(
        cohort=cohort,
        task={"name": "denoising"},
        encoder={"preset": "tiny"},
        patch=PATCH,
        probe={"num_labelled": num_labelled, "every": 4},
        loop=LoopConfig(steps=STEPS, batch_size=2, log_every=1, checkpoint_every=2, diagnose_every=100, workers=0),
    )


def scores_of(run: Path) -> list[tuple[float, ...]]:
    return [(line["step"], *(line[name] for name in DICE)) for line in Run.open(run).metrics() if DICE[0] in line]


@pytest.fixture(scope="module")
def probed(small_archive, tmp_path_factory):
    """(run folder, what was said) of a pretraining with a probe on four scans."""
    said = Said()
    return pretrain(
        config_of(small_archive.cohort, num_labelled=4), tmp_path_factory.mktemp("r") / "run", progress=said
    ), said


def test_online_probe_leaves_encoder_unchanged(probed, small_archive, tmp_path):
    alone = pretrain(config_of(small_archive.cohort, num_labelled=0), tmp_path / "alone")
    with_probe, without = (load_encoder(run)[0].state_dict() for run in (probed[0], alone))
    for name, tensor in without.items():
        assert torch.equal(tensor, with_probe[name]), name
    assert not scores_of(alone)
    losses = [
        [line["train/loss"] for line in Run.open(run).metrics() if "train/loss" in line] for run in (probed[0], alone)
    ]
    assert losses[0] == losses[1]


def test_online_probe_scores_reach_run_card_terminal(probed):
    run, said = probed
    scores = scores_of(run)
    assert [row[0] for row in scores] == [0, 4, 8]
    # a box of 2.5 and 4 times the background's brightness is read off even a fresh encoder, better than by chance
    assert all(0.3 < row[1] <= 1.0 for row in scores)
    assert all(row[1] == pytest.approx((row[2] + row[3]) / 2) for row in scores)
    assert f"| probe/dice | {scores[-1][1]:.3f} |" in run_card(Run.open(run))
    assert f"step 8: a linear probe reaches Dice {scores[-1][1]:.3f}" in said.lines


def test_online_probe_scores_are_equal_after_resume(probed, small_archive, tmp_path):
    config = config_of(small_archive.cohort, num_labelled=4)
    with pytest.raises(KilledError):
        pretrain(config, tmp_path / "run", progress=KillAt(7))
    pretrain(config, tmp_path / "run", resume=True)
    assert scores_of(tmp_path / "run") == scores_of(probed[0])


def test_online_probe_reads_no_test_labels(probed, small_archive):
    cohort = Cohort.open(small_archive.cohort)
    test = {row.scan_id for row in cohort.accepted(split="test")}
    used = json.loads((probed[0] / "run.json").read_text())["metadata"]["probe_scans"]
    assert len(used) == 4
    assert test
    assert not test & set(used)
    # the very scans that fine-tuning on four labels would see: a probe costs no further label
    assert used == [scan.scan_id for scan in training_scans(cohort, num_labelled=4, seed=0)]


def test_online_probe_separates_fitted_and_scored_scans(small_archive):
    cohort, task = Cohort.open(small_archive.cohort), prepare(config_of(small_archive.cohort, num_labelled=3)).task
    probe = online_probe(task, ProbeConfig(num_labelled=3), cohort, patch=PATCH, seed=0)
    assert probe is not None
    images, labels, second = probe._patches(torch.device("cpu"))
    assert images.shape == (6, 1, *PATCH)  # two patches of each scan
    assert all(label.any() for label in labels)  # each centred on a labelled voxel
    assert int(second.sum()) == 4


def test_online_probe_refuses_too_many_or_one_label(small_archive, tmp_path):
    with pytest.raises(ConfigError, match=r"probe\.num_labelled is 9, but the split 'train' has 8 labelled scans"):
        pretrain(config_of(small_archive.cohort, num_labelled=9), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="fitted on one half"):
        ProbeConfig(num_labelled=1)
