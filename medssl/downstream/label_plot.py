"""The picture of label efficiency: Dice over the number of labelled scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medssl.downstream.comparison import Comparison
    from medssl.downstream.intervals import Interval


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Write a PNG: Dice of each init with its 95 % interval, and beside it the paired gain over scratch."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (level, gain) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    inits = list(dict.fromkeys(row.init for row in comparison.rows))
    counts = sorted({row.num_labelled for row in comparison.rows})
    for index, init in enumerate(inits):
        rows = sorted((row for row in comparison.rows if row.init == init), key=lambda row: row.num_labelled)
        x = [counts.index(row.num_labelled) + 0.06 * (index - (len(inits) - 1) / 2) for row in rows]
        style = {"label": init, "color": f"C{index}", "marker": "o", "capsize": 3}
        level.errorbar(x, *_percent([row.dice for row in rows]), **style)
        paired = [(x_value, row.gain) for x_value, row in zip(x, rows, strict=True) if row.gain]
        if paired:
            gain.errorbar([x_value for x_value, _ in paired], *_percent([interval for _, interval in paired]), **style)
    gain.axhline(0.0, color="grey", linewidth=1)
    level.set(ylabel="Dice (%)", title="Dice on the test scans, 95 % interval")
    gain.set(ylabel="gain over scratch (Dice points)", title="Paired gain over scratch, 95 % interval")
    for axes in (level, gain):
        axes.set(xlabel="labelled scans", xticks=range(len(counts)), xticklabels=[str(n) for n in counts])
        axes.grid(alpha=0.3)
    level.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _percent(intervals: Sequence[Interval]) -> tuple[list[float], list[list[float]]]:
    """Means, and the lengths of the error bars below and above them, in percent."""
    below = [100 * (interval.mean - interval.low) for interval in intervals]
    above = [100 * (interval.high - interval.mean) for interval in intervals]
    return [100 * interval.mean for interval in intervals], [below, above]
