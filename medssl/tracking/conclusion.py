"""What a comparison says in words: where each init helps, and what a reviewer should keep in mind."""

from collections.abc import Sequence

from medssl.downstream.comparison import SCRATCH, Comparison, ComparisonRow, points, span
from medssl.downstream.intervals import Interval

MIN_CASES, NEVER_LEARNED_DICE = 20, 0.1
MIN_SEEDS = 6  # with fewer, intervals are too narrow: benchmarks/interval_coverage.py


def conclusion(comparison: Comparison) -> str:
    """One or more sentences: where each init helps, hurts, or shows nothing."""
    return " ".join(_conclusion_of(init, comparison.rows) for init in comparison.inits if init != SCRATCH)


def _conclusion_of(init: str, rows: Sequence[ComparisonRow]) -> str:
    gains = [(row, row.gain) for row in sorted(rows, key=lambda row: row.num_labelled) if row.init == init and row.gain]
    better = [_gain_at(row, gain) for row, gain in gains if gain.low > 0]
    worse = [_gain_at(row, gain) for row, gain in gains if gain.high < 0]
    if better:
        sentence = f"{init} beats scratch: {', '.join(better)}."
    else:
        sentence = f"{init} shows no gain over scratch: every 95 % interval reaches zero."
    return f"{sentence} It is worse than scratch: {', '.join(worse)}." if worse else sentence


def _gain_at(row: ComparisonRow, gain: Interval) -> str:
    return f"{points(gain.mean)} Dice points with {row.num_labelled} labelled scans (95 % interval {span(gain)})"


def cautions(comparison: Comparison) -> list[str]:
    """Reasons to doubt the numbers, by fixed rules (docs/review.md)."""
    sentences = []
    if comparison.num_seeds < MIN_SEEDS:
        sentences.append(
            f"{comparison.num_seeds} seeds only: the intervals are too narrow, and one may lie above zero without a "
            "real gain. Call `medssl label-efficiency` again with --seeds 6 or more; finished runs are kept."
        )
    if comparison.num_cases < MIN_CASES:
        sentences.append(f"{comparison.num_cases} test scans only.")
    absent = [label for label, dice in comparison.rows[0].class_dice.items() if dice is None]
    sentences += [f"Class {label} is in no test scan: nothing is known about it." for label in absent]
    alarms_of_scratch = {row.num_labelled: row.false_alarms for row in comparison.rows if not row.gain}
    for row in comparison.rows:
        where = f"{row.init} with {row.num_labelled} labelled scans"
        for label, dice in row.class_dice.items():
            if dice is not None and dice < NEVER_LEARNED_DICE:
                sentences.append(f"Class {label} was never learned from {where} (Dice {100 * dice:.0f} %).")
        of_scratch = alarms_of_scratch.get(row.num_labelled, 0)
        if row.false_alarms > of_scratch:
            sentences.append(
                f"{where}: {row.false_alarms} of {row.empty} false alarms, {of_scratch} from scratch; Dice does not "
                "see them."
            )
        if row.gain and row.gain.low <= 0 <= row.gain.high:
            sentences.append(f"{where}: the 95 % interval of the gain contains zero ({span(row.gain)}).")
    return sentences


def conclusion_card(comparison: Comparison) -> str:
    """Conclusion, table and cautions as Markdown, for the description of a run in MLflow."""
    notes = [f"- {caution}" for caution in cautions(comparison)]
    return "\n".join([f"**{conclusion(comparison)}**", "", comparison.as_markdown(), *notes])
