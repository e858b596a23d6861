"""How often does the 95 % interval of a label-efficiency table contain the true gain?

    python benchmarks/interval_coverage.py [--tables 2000]

Simulates tables of paired differences whose true mean is zero. Each value is the sum of a seed effect (draw of labelled
scans and initialisation, equal for all scans of a seed), a scan effect (equal for all seeds of a scan) and a residual,
all normal, in Dice points. Prints, for each standard deviation of the seed effect and each number of seeds, the
percentage of intervals that contain zero and the percentage that lie above it: false gains. docs/review.md has the
figures.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from medssl.downstream.intervals import paired_interval

SCANS = 40
SEEDS = (3, 6, 10)
SEED_SD, SCAN_SD, RESIDUAL_SD = (0.0, 0.5, 1.0, 2.0), 2.0, 2.0  # Dice points
RESAMPLES = 1000  # a tenth of those of a real table; more do not change the percentages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=2000, help="simulated tables per figure")
    tables: int = parser.parse_args().tables
    print(f"{tables} tables of {SCANS} scans each: contain zero (above zero), in %")
    print("| seed sd, Dice points |" + "".join(f" {seeds} seeds |" for seeds in SEEDS))
    print("|" + " --- |" * (1 + len(SEEDS)))
    for seed_sd in SEED_SD:
        cells = []
        for seeds in SEEDS:
            contains, above = coverage(seeds, seed_sd, tables=tables)
            cells.append(f" {100 * contains:.1f} ({100 * above:.1f}) |")
        print(f"| {seed_sd:g} |" + "".join(cells), flush=True)


def coverage(seeds: int, seed_sd: float, *, tables: int) -> tuple[float, float]:
    """Fraction of intervals that contain zero, and fraction that lie above zero."""
    random = np.random.Generator(np.random.Philox(key=seeds))
    containing = above = 0
    for _ in range(tables):
        interval = paired_interval(differences(random, seeds, seed_sd), resamples=RESAMPLES)
        assert interval
        containing += interval.low <= 0 <= interval.high
        above += interval.low > 0
    return containing / tables, above / tables


def differences(random: np.random.Generator, seeds: int, seed_sd: float) -> NDArray[np.float64]:
    """(seeds, scans) differences to scratch, in Dice points, without any gain."""
    by_seed = seed_sd * random.standard_normal((seeds, 1))
    by_scan = SCAN_SD * random.standard_normal((1, SCANS))
    return by_seed + by_scan + RESIDUAL_SD * random.standard_normal((seeds, SCANS))


if __name__ == "__main__":
    main()
