"""Intervals of paired differences."""

import numpy as np
import pytest

from medssl.downstream.intervals import paired_interval


def test_interval_of_equal_scores_has_no_width():
    interval = paired_interval(np.full((3, 40), 0.25))
    assert interval
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.25, 0.25, 0.25))


def test_interval_with_one_seed_matches_normal_theory():
    cases = np.random.default_rng(0).normal(0.0, 1.0, (1, 400))
    interval = paired_interval(cases)
    assert interval
    half_width = 1.96 * cases.std() / 20  # normal theory, sqrt(400) = 20
    assert interval.high - interval.mean == pytest.approx(half_width, rel=0.08)
    assert interval.mean - interval.low == pytest.approx(half_width, rel=0.08)


def test_interval_widens_where_seeds_disagree():
    scores = np.repeat([[-1.0], [0.0], [1.0]], 500, axis=1)
    interval = paired_interval(scores)
    assert interval
    # standard error of the mean of 3 resampled seeds with population variance 2/3
    assert interval.high > 1.5 * np.sqrt(2 / 3 / 3) > 0
    assert interval.low < -1.5 * np.sqrt(2 / 3 / 3)


def test_interval_ignores_cases_without_score():
    scores = np.array([[1.0, np.nan, 3.0], [1.0, np.nan, 3.0]])
    interval = paired_interval(scores)
    assert interval
    assert interval.mean == pytest.approx(2.0)


def test_interval_without_scores_is_none():
    assert paired_interval(np.full((2, 3), np.nan)) is None
