"""What a label-efficiency folder says, in numbers and in words."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.errors import DataError

FILE_NAME = "label_efficiency.json"
FEW_CASES, NEVER_LEARNED = 20, 0.1
FEW_SEEDS = 6  # below, intervals are too narrow: benchmarks/interval_coverage.py


@dataclass(frozen=True)
class Line:
    """One start at one label count.

    Dice in [0, 1]; gain: difference to scratch with its 95 % interval, None for scratch. classes: None for one that no
    test scan has. false_alarms: how often a class was predicted where the reference lacks it, and of how many times.
    """

    labels: int
    init: str
    dice: tuple[float, float, float]
    gain: tuple[float, float, float] | None
    classes: dict[str, float | None]
    false_alarms: tuple[int, int]


@dataclass(frozen=True)
class Evidence:
    """All comparisons of a folder, with the number of seeds and test scans behind them."""

    lines: tuple[Line, ...]
    seeds: int
    cases: int

    @property
    def starts(self) -> tuple[str, ...]:
        """Names of the starts, scratch first."""
        return tuple(dict.fromkeys(line.init for line in sorted(self.lines, key=lambda line: line.gain is not None)))


def read_evidence(folder: Path) -> Evidence:
    """The content of label_efficiency.json. Raises DataError when it is missing or damaged."""
    path = folder / FILE_NAME
    try:
        content = json.loads(path.read_text())
        lines = tuple(_line(entry) for entry in content["summary"])
        rows = content["rows"]
        return Evidence(lines, len({row["seed"] for row in rows}), len({row["case"] for row in rows}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}). "
            "Call `medssl label-efficiency` again to complete the folder."
        ) from error


def _line(entry: dict[str, Any]) -> Line:
    gain = None
    if entry["difference"] is not None:
        gain = (entry["difference"], entry["difference_low"], entry["difference_high"])
    alarms = (entry["false_alarms"], entry["empty"])
    dice = (entry["mean"], entry["low"], entry["high"])
    return Line(entry["labels"], entry["init"], dice, gain, entry["class_means"], alarms)


def verdict(evidence: Evidence) -> str:
    """One or more sentences: where each start helps, hurts, or shows nothing."""
    return " ".join(_verdict_of(start, evidence.lines) for start in evidence.starts if start != "scratch")


def _verdict_of(start: str, lines: Sequence[Line]) -> str:
    own = sorted((line for line in lines if line.init == start and line.gain), key=lambda line: line.labels)
    helps = [line for line in own if line.gain and line.gain[1] > 0]
    hurts = [line for line in own if line.gain and line.gain[2] < 0]
    if helps:
        parts = [
            f"{points(line.gain[0])} at {line.labels} labels ({interval(line.gain)})" for line in helps if line.gain
        ]
        sentence = f"{start} beats scratch: {', '.join(parts)}."
    else:
        sentence = f"{start} shows no gain over scratch: every 95 % interval reaches zero."
    if hurts:
        parts = [
            f"{points(line.gain[0])} at {line.labels} labels ({interval(line.gain)})" for line in hurts if line.gain
        ]
        sentence += f" It is worse than scratch: {', '.join(parts)}."
    return sentence


def cautions(evidence: Evidence) -> list[str]:
    """What a reviewer should hold against the numbers."""
    found = []
    if evidence.seeds < FEW_SEEDS:
        found.append(
            f"{evidence.seeds} seeds only: the intervals are too narrow, and one may lie above zero where there is no "
            "gain. Call `medssl label-efficiency` again with --seeds 6 or more; what is finished is kept."
        )
    if evidence.cases < FEW_CASES:
        found.append(f"{evidence.cases} test scans only.")
    absent = [name for name, dice in evidence.lines[0].classes.items() if dice is None]
    found += [f"Class {name} is in no test scan: nothing is known of it." for name in absent]
    scratch = {line.labels: line.false_alarms[0] for line in evidence.lines if not line.gain}
    for line in evidence.lines:
        for name, dice in line.classes.items():
            if dice is not None and dice < NEVER_LEARNED:
                found.append(
                    f"Class {name} was never learned from {line.init} at {line.labels} labels (Dice {dice:.2f})."
                )
        if line.false_alarms[0] > scratch.get(line.labels, 0):
            found.append(
                f"{line.init} at {line.labels} labels: {alarms(line)} false alarms, {scratch.get(line.labels, 0)} from "
                "scratch; Dice does not see them."
            )
        if line.gain and line.gain[1] <= 0 <= line.gain[2]:
            found.append(f"{line.init} at {line.labels} labels: the interval spans zero ({interval(line.gain)}).")
    return found


def points(difference: float) -> str:
    """A Dice difference in points of 100, with its sign."""
    return f"{100 * difference:+.1f} points"


def interval(gain: tuple[float, float, float]) -> str:
    """The interval of a gain, in points."""
    return f"95 % {100 * gain[1]:+.1f} to {100 * gain[2]:+.1f}"


def alarms(line: Line) -> str:
    """False alarms, and how many there could have been."""
    return f"{line.false_alarms[0]} of {line.false_alarms[1]}"


def as_markdown(evidence: Evidence) -> str:
    """Verdict, table and cautions, for the description of a run in MLflow."""
    head = ["| labels | start | Dice | vs scratch | 95 % paired |", "| --- | --- | --- | --- | --- |"]
    rows = [
        f"| {line.labels} | {line.init} | {100 * line.dice[0]:.1f} | "
        + (f"{points(line.gain[0])} | {interval(line.gain)} |" if line.gain else " | |")
        for line in evidence.lines
    ]
    notes = [f"- {caution}" for caution in cautions(evidence)]
    return "\n".join([f"**{verdict(evidence)}**", "", *head, *rows, "", *notes])
