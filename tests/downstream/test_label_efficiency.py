"""The comparison of starts at label counts."""

import pytest

from medssl.downstream.label_efficiency import Score, compare, markdown_table


def scores_where_masked_gains(gain: float) -> list[Score]:
    return [
        Score(init, labels=3, seed=seed, case=case, dice={"1": base + extra, "2": base - 0.1 + extra})
        for seed in (0, 1, 2)
        for case, base in (("a", 0.5), ("b", 0.7))
        for init, extra in (("scratch", 0.0), ("masked", gain))
    ]


def test_the_gain_is_paired_by_seed_and_case():
    scratch, masked = compare(scores_where_masked_gains(0.04))
    assert scratch.mean == pytest.approx(0.55)
    assert scratch.difference is None
    assert masked.difference == pytest.approx(0.04)
    # every pair gains the same, so the paired interval has no width although cases differ by 0.2
    assert (masked.difference_low, masked.difference_high) == pytest.approx((0.04, 0.04))
    assert masked.class_means == pytest.approx({"1": 0.64, "2": 0.54})


def test_a_class_that_a_case_lacks_is_left_out_of_its_mean():
    scores = [Score("scratch", 3, 0, "a", {"1": 0.8, "2": None}), Score("scratch", 3, 0, "b", {"1": 0.6, "2": 0.2})]
    (only,) = compare(scores)
    assert only.mean == pytest.approx((0.8 + 0.4) / 2)
    assert only.class_means == pytest.approx({"1": 0.7, "2": 0.2})


def test_the_table_states_points_and_intervals():
    table = markdown_table(compare(scores_where_masked_gains(0.04)))
    assert "| 3 | masked | 59.0 |" in table
    assert "| +4.0 | +4.0 to +4.0 |" in table
