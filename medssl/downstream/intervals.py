"""Intervals for means of scores that depend on a seed and on a scan."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval [low, high]."""

    mean: float
    low: float
    high: float


def paired_interval(scores: npt.NDArray[np.float64], *, resamples: int = RESAMPLES) -> Interval | None:
    """Mean and 95 % percentile-bootstrap interval of scores, with seeds and scans resampled independently.

    Seeds and scans are both samples: of label choices and initialisations, and of patients. Resampling scans only would
    mistake a lucky draw of labels for an improvement; this interval is wider (Owen 2007, "The pigeonhole bootstrap",
    eq. 3). With few seeds it is still too narrow. Percentage of intervals that contain a true difference of zero (and
    percentage that lie above it), of 2000 tables each with 40 scans; standard deviations in Dice points: scans 2,
    residual 2, seeds as in the first column (benchmarks/interval_coverage.py):

        seeds   3 seeds      6 seeds      10 seeds
        0       97.4 (1.3)   96.0 (2.1)   95.8 (1.8)
        0.5     94.2 (3.1)   95.2 (2.8)   95.5 (2.2)
        1       88.2 (5.8)   92.7 (3.7)   93.8 (3.3)
        2       81.6 (9.1)   89.0 (6.0)   92.0 (4.2)

    Args:
        scores: (seeds, scans); NaN for a scan without any class.
        resamples: Number of bootstrap resamples.

    Returns:
        None where all scores are NaN. The same scores always give the same interval: the generator has a fixed key.
    """
    seeds, scans = scores.shape
    if not np.isfinite(scores).any():
        return None
    random = np.random.Generator(np.random.Philox(key=0))
    rows = random.integers(seeds, size=(resamples, seeds))
    columns = random.integers(scans, size=(resamples, scans))
    # One resample is the whole sub-table rows x columns, not single cells: scores of one seed move together, and so do
    # those of one scan. Sum and count take the place of nanmean, because a resample may consist of NaN only: it has no
    # mean, is dropped, and must not warn.
    finite = np.isfinite(scores)
    filled = np.where(finite, scores, 0.0)
    sums = [filled[np.ix_(r, c)].sum() for r, c in zip(rows, columns, strict=True)]
    counts = [finite[np.ix_(r, c)].sum() for r, c in zip(rows, columns, strict=True)]
    means = [total / count for total, count in zip(sums, counts, strict=True) if count]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(filled.sum() / finite.sum()), float(low), float(high))
