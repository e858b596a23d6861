"""The comparison of inits with each number of labelled scans."""

from dataclasses import replace

import pytest

from medssl.config import EncoderConfig
from medssl.downstream.comparison import Comparison, Score, compare
from medssl.downstream.dice import CaseScore
from medssl.downstream.sweep import shared_network
from medssl.encoders.build import build_encoder, describe
from medssl.encoders.weights import save_encoder
from medssl.errors import DataError, UsageError


def score(init: str, num_labelled: int, seed: int, scan: str, dice: dict[int, float | None], alarms=()) -> Score:
    return Score(init, num_labelled, seed, CaseScore(scan, dice, alarms))


def scores_where_masked_gains(gain: float) -> list[Score]:
    return [
        score(init, 3, seed, case, {1: base + extra, 2: base - 0.1 + extra})
        for seed in (0, 1, 2)
        for case, base in (("a", 0.5), ("b", 0.7))
        for init, extra in (("scratch", 0.0), ("masked", gain))
    ]


def test_gain_is_paired_by_seed_and_case():
    scratch, masked = compare(scores_where_masked_gains(0.04)).rows
    assert scratch.dice.mean == pytest.approx(0.55)
    assert scratch.gain is None
    assert masked.gain.mean == pytest.approx(0.04)
    # every pair gains the same, so the paired interval has no width although cases differ by 0.2
    assert (masked.gain.low, masked.gain.high) == pytest.approx((0.04, 0.04))
    assert masked.class_dice == pytest.approx({1: 0.64, 2: 0.54})


def test_case_mean_ignores_absent_class():
    scores = [score("scratch", 3, 0, "a", {1: 0.8, 2: None}), score("scratch", 3, 0, "b", {1: 0.6, 2: 0.2})]
    (only,) = compare(scores).rows
    assert only.dice.mean == pytest.approx((0.8 + 0.4) / 2)
    assert only.class_dice == pytest.approx({1: 0.7, 2: 0.2})


@pytest.mark.parametrize("other", ["c", None])
def test_comparison_refuses_scores_without_partner(other):
    scores = scores_where_masked_gains(0.04)
    odd = next(s for s in scores if (s.init, s.seed, s.case.scan_id) == ("masked", 1, "b"))
    scores[scores.index(odd)] = (
        replace(odd, case=replace(odd.case, scan_id=other)) if other else replace(odd, num_labelled=5)
    )
    with pytest.raises(
        DataError,
        match=r"With 3 labelled scans 'masked' and scratch.*first: seed 1, scan b, classes 1 and 2, which scratch has",
    ):
        compare(scores)


def test_false_alarms_leave_dice_and_pairs_alone():
    """The reference of "b" lacks class 2: scratch sees it there, the pretrained network does not."""
    scores = [
        score(init, 3, seed, case, {1: 0.6, 2: None if case == "b" else 0.4}, alarms if case == "b" else ())
        for seed in (0, 1)
        for case in ("a", "b")
        for init, alarms in (("scratch", (2,)), ("masked", ()))
    ]
    comparison = compare(scores)
    scratch, masked = comparison.rows
    assert scratch.dice.mean == masked.dice.mean == pytest.approx((0.5 + 0.6) / 2)
    assert (scratch.false_alarms, scratch.empty, masked.false_alarms, masked.empty) == (2, 2, 0, 2)
    table = comparison.as_markdown()
    assert "class 2 | false alarms |" in table
    assert table.count("2 of 2 |") == table.count("0 of 2 |") == 1
    assert "whose reference has it, for every init alike" in table


def test_comparison_refuses_inits_scored_on_other_classes():
    scores = [score("scratch", 3, 0, "a", {1: 0.6, 2: 0.0}), score("masked", 3, 0, "a", {1: 0.6, 2: None})]
    with pytest.raises(DataError, match=r"scan a, classes 1, which masked has and scratch has not"):
        compare(scores)


def test_comparison_without_any_class_is_refused():
    """A class in no test scan has no mean; a test split without any class has no interval."""
    comparison = compare([score("scratch", 3, 0, case, {1: 0.5, 2: None}) for case in "ab"])
    assert comparison.rows[0].class_dice == {1: 0.5, 2: None}
    assert "| 50.0 | none | 0 of 2 |" in comparison.as_markdown()
    assert "Class 2 is in no test scan." in comparison.as_markdown()
    with pytest.raises(DataError, match="neither a Dice nor an interval"):
        compare([score("scratch", 3, 0, case, {1: None}) for case in "ab"])


def test_table_states_points_and_intervals():
    table = compare(scores_where_masked_gains(0.04)).as_markdown()
    assert "| 3 | masked | 59.0 |" in table
    assert "| +4.0 | +4.0 to +4.0 |" in table


def test_comparison_file_returns_the_same_comparison(tmp_path):
    comparison = compare(scores_where_masked_gains(0.04))
    comparison.write(tmp_path)
    assert Comparison.read(tmp_path) == comparison


def test_scratch_takes_the_network_of_pretrained_inits(tmp_path):
    for name, patch in (("a", (32, 32, 32)), ("b", (32, 32, 32)), ("shallow", (24, 32, 24))):
        (tmp_path / name).mkdir()
        save_encoder(tmp_path / name, build_encoder(describe("dynunet", preset="tiny", patch=patch)), metadata={})
    inits = {name: str(tmp_path / name) for name in ("a", "b", "shallow")}
    asked = EncoderConfig(name="segresnet", preset="small")
    network = shared_network(asked, {"scratch": "scratch", "a": inits["a"], "b": inits["b"]})
    assert (network.name, network.preset, network.options["filters"]) == ("dynunet", "small", [8, 16, 32, 64])
    again = describe(network.name, preset=network.preset, options=network.options, patch=(48, 64, 48))
    assert again == build_encoder(again).description == describe("dynunet", preset="tiny", patch=(32, 32, 32))
    assert shared_network(asked, {"scratch": "scratch"}) == asked
    with pytest.raises(UsageError, match=r"'a' and 'shallow'.*filters \[8, 16, 32, 64\] and \[8, 16, 32\]"):
        shared_network(asked, inits)


@pytest.mark.parametrize("name", ["dynunet", "segresnet", "swin-unetr", "vit"])
def test_described_network_is_equal_for_other_patches(name):
    first = describe(name, preset="tiny", patch=(64, 64, 64))
    assert describe(name, preset="base", options=first.options, patch=(64, 96, 64)) == first
