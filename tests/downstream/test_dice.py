"""Dice per class and case, with the empty cases stated."""

import numpy as np
import pytest
import torch

from medssl.downstream.dice import CaseScore, Evaluation, case_score, dice, read_evaluation


def tensor(mask: np.ndarray) -> torch.Tensor:
    """(B, C, ...) as MONAI takes it."""
    return torch.from_numpy(mask)[None, None].float()


def test_dice_of_two_known_boxes():
    a, b = np.zeros((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
    a[:2], b[1:3] = True, True
    assert dice(a, b) == pytest.approx(2 * 30 / (60 + 60))
    monai = pytest.importorskip("monai.metrics")
    reference = monai.compute_dice(tensor(a), tensor(b))
    assert dice(a, b) == pytest.approx(float(reference))


@pytest.mark.parametrize("everywhere", [False, True])
def test_dice_of_empty_reference_is_none(everywhere):
    predicted, reference = np.full((2, 3, 4), everywhere), np.zeros((2, 3, 4), bool)
    assert dice(predicted, reference) is None
    monai = pytest.importorskip("monai.metrics")
    assert torch.isnan(monai.compute_dice(tensor(predicted), tensor(reference)))


def test_case_score_separates_false_alarms_from_missed_classes():
    reference = np.zeros((2, 3, 4), np.uint8)
    reference[0] = 1
    alarm = reference.copy()
    alarm[1, 0, 0] = 2
    assert case_score("a", alarm, reference, labels=(1, 2)) == CaseScore("a", {1: 1.0, 2: None}, (2,))
    assert case_score("a", reference, reference, labels=(1, 2)) == CaseScore("a", {1: 1.0, 2: None}, ())
    assert case_score("a", reference, reference, labels=(1, 2)).empty == (2,)
    assert case_score("a", reference, alarm, labels=(1, 2)).dice == {1: pytest.approx(12 * 2 / 24), 2: 0.0}


def test_evaluation_averages_class_means_and_counts_empty_cases():
    cases = (CaseScore("a", {1: 0.8, 2: None}, (2,)), CaseScore("b", {1: 0.6, 2: 0.1}))
    evaluation = Evaluation(cases, {1: "liver", 2: "tumour"})
    assert evaluation.class_dice[1] == pytest.approx(0.7)
    assert evaluation.class_dice[2] == pytest.approx(0.1)
    assert evaluation.dice == pytest.approx(0.4)
    content = evaluation.as_dict()
    assert content["classes"]["2"] == {"name": "tumour", "dice": 0.1, "empty": 1, "false_alarms": 1}
    assert content["cases"][0] == {"scan_id": "a", "dice": {1: 0.8, 2: None}, "empty": (2,), "false_alarms": (2,)}
    assert evaluation.sentences() == [
        "Dice on 2 test scans: 0.400",
        "class 'tumour': 1 false alarms in 1 test scans without it",
    ]


def test_evaluation_names_classes_without_reference():
    evaluation = Evaluation((CaseScore("a", {1: 0.8, 2: None}),), {1: "liver", 2: "tumour"})
    assert evaluation.dice == pytest.approx(0.8)
    assert evaluation.class_dice[2] is None
    assert "class 'tumour' is in no test scan: it has no Dice, and no part in the mean" in evaluation.sentences()
    nothing = Evaluation((CaseScore("a", {1: None}),), {1: "liver"})
    assert nothing.dice is None
    assert nothing.sentences()[0] == "Dice on 1 test scans: none"


def test_evaluation_file_returns_the_same_evaluation(tmp_path):
    assert read_evaluation(tmp_path) is None
    evaluation = Evaluation((CaseScore("a", {1: 0.8, 2: None}, (2,)),), {1: "liver", 2: "tumour"})
    evaluation.write(tmp_path)
    assert read_evaluation(tmp_path) == evaluation
