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

    dice: class value to Dice; None where the reference lacks the class. false_alarms: the classes that were predicted
    there all the same.
    """

    init: str
    labels: int
    seed: int
    case: str
    dice: Mapping[str, float | None]
    false_alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """One start at one label count, against scratch with the same labels and seeds.

    Intervals are 95 %; those of scratch itself are None. class_means: None where no reference has the class. empty:
    how often, over classes, cases and seeds, a reference lacks a class; false_alarms: how often it was predicted there.
    """

    labels: int
    init: str
    mean: float
    low: float
    high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    class_means: Mapping[str, float | None]
    empty: int
    false_alarms: int


def compare(scores: Sequence[Score]) -> list[Comparison]:
    """Means and paired differences per label count and start; a case's score is the mean over its classes.

    A difference is that of one seed and one case. Raises DataError where a start was scored on other seeds, cases or
    classes than scratch, and where no reference has any class.
    """
    comparisons = []
    for labels in sorted({score.labels for score in scores}):
        scratch = score_table(scores, labels=labels, init=SCRATCH)
        for init in dict.fromkeys(score.init for score in scores):
            check_pairs(scores, labels=labels, init=init)
            own = [score for score in scores if score.labels == labels and score.init == init]
            table = score_table(scores, labels=labels, init=init)
            mean = paired_interval(table)
            if mean is None:
                raise DataError(
                    "no test scan has any class in its label, so there is no Dice and no interval. Ingest test scans "
                    "that have them, or give --splits."
                )
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
                    class_means=class_means(own),
                    empty=sum(value is None for score in own for value in score.dice.values()),
                    false_alarms=sum(len(score.false_alarms) for score in own),
                )
            )
    return comparisons


def check_pairs(scores: Sequence[Score], *, labels: int, init: str) -> None:
    """Raise DataError unless scratch has a score of the same classes wherever this start has one, and the other way
    round.
    """
    own, scratch = (
        {(s.seed, s.case, judged(s)) for s in scores if s.labels == labels and s.init == name}
        for name in (init, SCRATCH)
    )
    if odd := sorted(own ^ scratch):
        seed, case, classes = odd[0]
        has, lacks = (init, SCRATCH) if odd[0] in own else (SCRATCH, init)
        raise DataError(
            f"at {labels} labels '{init}' and scratch were not scored on the same scans and classes: {len(odd)} scores "
            f"have no partner (first: seed {seed}, scan {case}, classes {' and '.join(classes) or 'none'}, which {has} "
            f"has and {lacks} has not). Remove the runs of one of the two, and call this again."
        )


def judged(score: Score) -> tuple[str, ...]:
    """The classes that the reference of a case has."""
    return tuple(name for name, value in score.dice.items() if value is not None)


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


def class_means(scores: Sequence[Score]) -> dict[str, float | None]:
    """Mean Dice per class over seeds and cases: a class that was never learned shows here. None where no case has
    it.
    """
    values = {c: [v for s in scores if (v := s.dice[c]) is not None] for c in scores[0].dice}
    return {c: float(np.mean(v)) if v else None for c, v in values.items()}
