"""How often does the 95 % interval of a label-efficiency table hold the true gain?

    python benchmarks/interval_coverage.py [--tables 2000]

Makes tables of paired differences whose true mean is zero: a part that all scans of a seed share (the draw of labelled
scans and the initialisation), a part that all seeds of a scan share, and a rest, all normal, in points of Dice. Prints
for each standard deviation of the seeds' part, and each number of seeds, the share of intervals that hold zero and the
share that lies above it: a gain that is none. docs/review.md has the figures.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from medssl.downstream.intervals import paired_interval

SCANS = 40
SEEDS = (3, 6, 10)
SEED_SD, SCAN_SD, REST_SD = (0.0, 0.5, 1.0, 2.0), 2.0, 2.0  # points
RESAMPLES = 1000  # a tenth of those of a real table; more do not change the shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=2000, help="simulated tables per figure")
    tables: int = parser.parse_args().tables
    print(f"{tables} tables of {SCANS} scans each: holds zero (above zero), in %")
    print("| seed sd, points |" + "".join(f" {seeds} seeds |" for seeds in SEEDS))
    print("|" + " --- |" * (1 + len(SEEDS)))
    for seed_sd in SEED_SD:
        cells = []
        for seeds in SEEDS:
            holds, above = coverage(seeds, seed_sd, tables=tables)
            cells.append(f" {100 * holds:.1f} ({100 * above:.1f}) |")
        print(f"| {seed_sd:g} |" + "".join(cells), flush=True)


def coverage(seeds: int, seed_sd: float, *, tables: int) -> tuple[float, float]:
    """Share of intervals that hold zero, and share that lies above zero."""
    draw = np.random.Generator(np.random.Philox(key=seeds))
    held = above = 0
    for _ in range(tables):
        interval = paired_interval(differences(draw, seeds, seed_sd), resamples=RESAMPLES)
        assert interval
        held += interval.low <= 0 <= interval.high
        above += interval.low > 0
    return held / tables, above / tables


def differences(draw: np.random.Generator, seeds: int, seed_sd: float) -> NDArray[np.float64]:
    """(seeds, scans) differences to scratch, in points, without any gain."""
    by_seed = seed_sd * draw.standard_normal((seeds, 1))
    by_scan = SCAN_SD * draw.standard_normal((1, SCANS))
    return by_seed + by_scan + REST_SD * draw.standard_normal((seeds, SCANS))


if __name__ == "__main__":
    main()
