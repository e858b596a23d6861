"""Scores of fine-tunings, held against scratch with the same labels, seed and scan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medssl.downstream.finetune import SCRATCH
from medssl.downstream.intervals import paired_interval
from medssl.errors import DataError


@dataclass(frozen=True)
class Score:
    """Dice of one test case after one fine-tuning.

    dice: class value to Dice; None where reference and prediction lack the class.
    """

    init: str
    labels: int
    seed: int
    case: str
    dice: Mapping[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """One start at one label count, against scratch with the same labels and seeds.

    Intervals are 95 %; those of scratch itself are None.
    """

    labels: int
    init: str
    mean: float
    low: float
    high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    class_means: Mapping[str, float]


def compare(scores: Sequence[Score]) -> list[Comparison]:
    """Means and paired differences per label count and start; a case's score is the mean over its classes.

    A difference is that of one seed and one case. Raises DataError where a start was scored on other pairs of seed and
    case than scratch.
    """
    comparisons = []
    for labels in sorted({score.labels for score in scores}):
        scratch = score_table(scores, labels=labels, init=SCRATCH)
        for init in dict.fromkeys(score.init for score in scores):
            check_pairs(scores, labels=labels, init=init)
            table = score_table(scores, labels=labels, init=init)
            mean = paired_interval(table)
            gain = paired_interval(table - scratch) if init != SCRATCH else None
            comparisons.append(
                Comparison(
                    labels=labels,
                    init=init,
                    mean=mean.mean,
                    low=mean.low,
                    high=mean.high,
                    difference=gain.mean if gain else None,
                    difference_low=gain.low if gain else None,
                    difference_high=gain.high if gain else None,
                    class_means=class_means(scores, labels=labels, init=init),
                )
            )
    return comparisons


def check_pairs(scores: Sequence[Score], *, labels: int, init: str) -> None:
    """Raise DataError unless scratch has a score wherever this start has one, and the other way round."""
    own, scratch = (
        {(s.seed, s.case) for s in scores if s.labels == labels and s.init == name} for name in (init, SCRATCH)
    )
    if odd := sorted(own ^ scratch):
        (seed, case), has, lacks = odd[0], *((init, SCRATCH) if odd[0] in own else (SCRATCH, init))
        raise DataError(
            f"at {labels} labels '{init}' and scratch were not scored on the same scans: of {len(own | scratch)} pairs "
            f"of seed and scan {len(odd)} have one score only (first: seed {seed}, scan {case}, which {has} has and "
            f"{lacks} has not). Remove the runs of one of the two, and call this again."
        )


def score_table(scores: Sequence[Score], *, labels: int, init: str) -> npt.NDArray[np.float64]:
    """(seeds, cases) mean Dice over classes, seeds and cases in sorted order; NaN where a case has no class at all."""
    chosen = {(s.seed, s.case): s.dice.values() for s in scores if s.labels == labels and s.init == init}
    seeds, cases = sorted({seed for seed, _ in chosen}), sorted({case for _, case in chosen})
    table = np.full((len(seeds), len(cases)), np.nan)
    for (seed, case), values in chosen.items():
        counted = [value for value in values if value is not None]
        if counted:
            table[seeds.index(seed), cases.index(case)] = np.mean(counted)
    return table


def class_means(scores: Sequence[Score], *, labels: int, init: str) -> dict[str, float]:
    """Mean Dice per class over seeds and cases: a class that was never learned shows here."""
    chosen = [s for s in scores if s.labels == labels and s.init == init]
    classes = list(chosen[0].dice)
    values = {c: [v for s in chosen if (v := s.dice[c]) is not None] for c in classes}
    return {c: float(np.mean(v)) if v else float("nan") for c, v in values.items()}
