"""The picture of label efficiency: Dice over the number of labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medssl.downstream.comparison import Comparison


def plot_comparisons(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write a PNG: one line per start with its 95 % interval, and beside it the paired gain over scratch."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (level, gain) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    inits = list(dict.fromkeys(c.init for c in comparisons))
    counts = sorted({c.labels for c in comparisons})
    for index, init in enumerate(inits):
        points = sorted((c for c in comparisons if c.init == init), key=lambda c: c.labels)
        x = [counts.index(c.labels) + 0.06 * (index - (len(inits) - 1) / 2) for c in points]
        colour = f"C{index}"
        spread = [[100 * (c.mean - c.low) for c in points], [100 * (c.high - c.mean) for c in points]]
        level.errorbar(x, [100 * c.mean for c in points], spread, label=init, color=colour, marker="o", capsize=3)
        paired = [(xi, c) for xi, c in zip(x, points, strict=True) if c.difference is not None]
        if paired:
            mean = [100 * (c.difference or 0.0) for _, c in paired]
            low = [100 * ((c.difference or 0.0) - (c.difference_low or 0.0)) for _, c in paired]
            high = [100 * ((c.difference_high or 0.0) - (c.difference or 0.0)) for _, c in paired]
            gain.errorbar([xi for xi, _ in paired], mean, [low, high], label=init, color=colour, marker="o", capsize=3)
    gain.axhline(0.0, color="grey", linewidth=1)
    level.set(ylabel="Dice (points)", title="Dice on the test scans, 95 % interval")
    gain.set(ylabel="points over scratch", title="Paired gain over scratch, 95 % interval")
    for axes in (level, gain):
        axes.set(xlabel="labelled scans", xticks=range(len(counts)), xticklabels=[str(n) for n in counts])
        axes.grid(alpha=0.3)
    level.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)
