"""Dice per class and case, with the empty cases stated."""

import pytest
import torch

from medssl.downstream.evaluate import CaseScore, Evaluation, dice


def test_dice_of_two_known_boxes():
    a, b = torch.zeros(4, 5, 6, dtype=torch.bool), torch.zeros(4, 5, 6, dtype=torch.bool)
    a[:2], b[1:3] = True, True
    assert dice(a, b) == pytest.approx(2 * 30 / (60 + 60))
    monai = pytest.importorskip("monai.metrics")
    reference = monai.compute_dice(a[None, None].float(), b[None, None].float())
    assert dice(a, b) == pytest.approx(float(reference))


def test_a_false_alarm_on_an_empty_reference_counts_as_zero_and_silence_is_left_out():
    nothing, something = torch.zeros(2, 2, 2, dtype=torch.bool), torch.ones(2, 2, 2, dtype=torch.bool)
    assert dice(something, nothing) == 0.0
    assert dice(nothing, nothing) is None


def test_the_mean_is_over_classes_of_class_means_and_empty_cases_are_counted():
    evaluation = Evaluation(
        cases=(CaseScore("a", {1: 0.8, 2: None}), CaseScore("b", {1: 0.6, 2: 0.1})), empty={1: 0, 2: 1}
    )
    assert evaluation.class_mean(1) == pytest.approx(0.7)
    assert evaluation.class_mean(2) == pytest.approx(0.1)
    assert evaluation.mean() == pytest.approx(0.4)
    assert evaluation.as_dict({1: "liver"})["classes"]["2"]["empty"] == 1
