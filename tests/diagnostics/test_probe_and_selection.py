"""The linear probe against its closed form, and the choice of a checkpoint without labels."""

import numpy as np
import pytest
import torch
from test_monitor import encoder_of, scans

from medssl.diagnostics.probe import LinearProbe, probe_segmentation, score_labels
from medssl.diagnostics.selection import Candidate, choose_checkpoint
from medssl.errors import ConfigError


def test_probe_solves_weighted_ridge_regression():
    draw = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 5, generator=draw), torch.arange(40) % 4 // 3  # classes of 30 and 10
    probe = LinearProbe.fit(features, labels, classes=2, ridge=0.1)
    x = features.double().numpy()
    x = np.c_[(x - x.mean(0)) / x.std(0), np.ones(40)]
    y = np.eye(2)[labels.numpy()]
    weight = np.where(labels.numpy() == 0, 1 / 30, 1 / 10) / 2
    rows = np.r_[x * np.sqrt(weight)[:, None], np.sqrt(0.1) * np.eye(6)[:5]]
    expected = np.linalg.lstsq(rows, np.r_[y * np.sqrt(weight)[:, None], np.zeros((5, 2))], rcond=None)[0]
    np.testing.assert_allclose(probe.weights.numpy(), expected, atol=1e-8)


def test_probe_finds_linear_signal_but_not_noise():
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (600,), generator=draw)
    good = torch.eye(3)[labels] + 0.1 * torch.randn(600, 3, generator=draw)
    noise = torch.randn(600, 8, generator=draw)
    for features, low, high in ((good, 0.99, 1.0), (noise, 0.0, 0.5)):
        probe = LinearProbe.fit(features[:400], labels[:400], classes=3)
        score = score_labels(probe.predict(features[400:]), labels[400:], 3)
        assert low <= score.accuracy <= high


def test_probe_tolerates_constant_channel():
    features = torch.cat([torch.eye(4)[:, :2], torch.ones(4, 1)], 1)
    probe = LinearProbe.fit(features, torch.tensor([0, 1, 0, 1]), classes=2)
    assert torch.isfinite(probe.weights).all()


def test_probe_dice_by_hand():
    score = score_labels(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 0, 0]), 4)
    assert score.dice == {1: pytest.approx(2 / 3)}
    assert score.accuracy == 0.5
    assert score_labels(torch.zeros(3).long(), torch.zeros(3).long(), 2).mean_dice == 0.0


def test_probe_segments_ball_from_dense_features():
    encoder, images = encoder_of(), scans(8)
    labels = (images > 0.6).long()
    score = probe_segmentation(encoder, images, labels, classes=2, fit_on=4)
    assert score.mean_dice > 0.6
    assert all(parameter.grad is None for parameter in encoder.parameters())
    shuffled = labels[torch.randperm(8, generator=torch.Generator().manual_seed(0))].roll((3, 5), (2, 3))
    assert probe_segmentation(encoder, images, shuffled, classes=2, fit_on=4).mean_dice < score.mean_dice


def candidates(**values):
    return [Candidate(10 * (i + 1), {f"diagnostics/{k}": v[i] for k, v in values.items()}) for i in range(4)]


def test_selection_rules_state_their_reason():
    runs = candidates(dense_rankme=[9.0, 5.0, 7.0, 6.0], energy_auc=[0.5, 0.9, 0.9, 0.8])
    assert choose_checkpoint(runs, select="last").step == 40
    chosen = choose_checkpoint(runs, select="rankme")
    assert chosen.step == 10
    assert "highest diagnostics/dense_rankme (9) of 4" in chosen.reason
    assert choose_checkpoint(runs, select="energy-gap").step == 30  # the later of equals


def test_selection_skips_first_quarter_and_alarms():
    early = [Candidate(0, {"diagnostics/dense_rankme": 99.0}), *candidates(dense_rankme=[1.0, 8.0, 7.0, 6.0])]
    assert choose_checkpoint(early, select="rankme").step == 20
    alarmed = [Candidate(c.step, c.metrics, alarm=c.step == 20) for c in early]
    assert choose_checkpoint(alarmed, select="rankme").step == 30
    everywhere = [Candidate(c.step, c.metrics, alarm=True) for c in early]
    chosen = choose_checkpoint(everywhere, select="rankme")
    assert chosen.step == 40
    assert "none without an alarm" in chosen.reason


def test_selection_suggests_for_unknown_rule():
    with pytest.raises(ConfigError, match=r"unknown rule 'rankmee'.*; did you mean 'rankme'"):
        choose_checkpoint(candidates(dense_rankme=[1.0, 2.0, 3.0, 4.0]), select="rankmee")
    with pytest.raises(ValueError, match="needs at least one candidate"):
        choose_checkpoint([], select="last")
