"""A label-efficiency comparison: its scores, what they say against scratch, its table, and label_efficiency.json.

The sweep writes it; the review page, MLflow and the command line read it. A new metric is a field of `CaseScore`
(dice.py) and a field of `ComparisonRow` with its column in `Comparison.table`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from medssl.downstream.dice import CaseScore, class_means
from medssl.downstream.intervals import Interval, paired_interval
from medssl.errors import DataError
from medssl.files import write_bytes
from medssl.formats import check_format

SCRATCH = "scratch"  # the init that every other is compared with
FILE_NAME = "label_efficiency.json"
FORMAT = 2


@dataclass(frozen=True)
class Score:
    """The score of one test scan after one fine-tuning.

    Attributes:
        init: Name of the initialisation, such as "scratch".
        num_labelled: Labelled scans that the fine-tuning saw.
        seed: Of the fine-tuning.
        case: Dice and false alarms of the scan.
    """

    init: str
    num_labelled: int
    seed: int
    case: CaseScore


@dataclass(frozen=True)
class ComparisonRow:
    """One init at one number of labelled scans, against scratch with the same labels and seeds.

    Attributes:
        num_labelled: Labelled scans that each fine-tuning saw.
        init: Name of the initialisation.
        dice: Mean over classes, scans and seeds, in [0, 1], with its 95 % interval.
        gain: Paired difference to scratch with its 95 % interval; None for scratch.
        class_dice: Class value to mean Dice; None where no reference has the class.
        empty: How often, over classes, scans and seeds, a reference lacks a class.
        false_alarms: How often a class was predicted where the reference lacks it.
    """

    num_labelled: int
    init: str
    dice: Interval
    gain: Interval | None
    class_dice: dict[int, float | None]
    empty: int
    false_alarms: int


@dataclass(frozen=True)
class Comparison:
    """Every init at every number of labelled scans.

    Attributes:
        rows: By number of labelled scans; scratch first among equals.
        scores: What the rows were computed from.
    """

    rows: tuple[ComparisonRow, ...]
    scores: tuple[Score, ...]

    @classmethod
    def read(cls, folder: Path) -> "Comparison":
        """The comparison in FOLDER/label_efficiency.json.

        Raises DataError where the file is missing, damaged or of another format.
        """
        path = folder / FILE_NAME
        try:
            content = json.loads(path.read_text())
            writer, remedy = content.get("medssl"), "call `medssl label-efficiency` with a new --out"
            check_format(path, content.get("format"), FORMAT, writer=writer, remedy=remedy)
            return _CODEC.validate_python(content)
        except (OSError, ValueError, AttributeError, ValidationError) as error:
            raise DataError(
                f"{path} cannot be read ({type(error).__name__}). "
                "Call `medssl label-efficiency` again to complete the folder."
            ) from error

    def write(self, folder: Path) -> None:
        """Write FOLDER/label_efficiency.json."""
        content = {"format": FORMAT, "medssl": version("medssl"), **_CODEC.dump_python(self, mode="json")}
        write_bytes(folder / FILE_NAME, json.dumps(content, indent=1, allow_nan=False).encode())

    @property
    def inits(self) -> tuple[str, ...]:
        """Names of the inits, scratch first."""
        return tuple(dict.fromkeys(row.init for row in sorted(self.rows, key=lambda row: row.gain is not None)))

    @property
    def num_seeds(self) -> int:
        """Number of seeds behind the rows."""
        return len({score.seed for score in self.scores})

    @property
    def num_cases(self) -> int:
        """Number of test scans behind the rows."""
        return len({score.case.scan_id for score in self.scores})

    def table(self) -> list[list[str]]:
        """The rows as text, the header first; Dice in percent, gains in Dice points."""
        classes, has_empty = list(self.rows[0].class_dice), any(row.empty for row in self.rows)
        header = ["labelled scans", "init", "Dice (%)", "95 % interval", "gain (points)", "95 % interval"]
        header += [f"class {label}" for label in classes] + ["false alarms"] * has_empty
        lines = [header]
        for row in self.rows:
            cells = [str(row.num_labelled), row.init, percent(row.dice.mean)]
            cells += [f"{percent(row.dice.low)} to {percent(row.dice.high)}"]
            cells += [points(row.gain.mean), span(row.gain)] if row.gain else ["", ""]
            cells += ["none" if (dice := row.class_dice[c]) is None else percent(dice) for c in classes]
            cells += [f"{row.false_alarms} of {row.empty}"] * has_empty
            lines.append(cells)
        return lines

    def caption(self) -> str:
        """What the figures of the table mean."""
        sentences = [
            "Dice in percent; gains over scratch in Dice points, paired by seed and scan.",
            "A class counts in the scans whose reference has it, for every init alike.",
        ]
        absent = [label for label, dice in self.rows[0].class_dice.items() if dice is None]
        sentences += [f"Class {label} is in no test scan." for label in absent]
        if any(row.empty for row in self.rows):
            sentences.append(
                "False alarms: how often a class was predicted in a scan whose reference lacks it, of how many such "
                "classes, scans and seeds; Dice does not see them."
            )
        return " ".join(sentences)

    def as_markdown(self) -> str:
        """Table and caption."""
        header, *rows = self.table()
        lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
        return "\n".join([*lines, "", self.caption()]) + "\n"


_CODEC = TypeAdapter(Comparison)


def percent(dice: float) -> str:
    """A Dice in percent, without the sign."""
    return f"{100 * dice:.1f}"


def points(difference: float) -> str:
    """A Dice difference in Dice points (hundredths), with its sign."""
    return f"{100 * difference:+.1f}"


def span(gain: Interval) -> str:
    """The 95 % interval of a gain, in Dice points."""
    return f"{points(gain.low)} to {points(gain.high)}"


def compare(scores: Sequence[Score]) -> Comparison:
    """Means and paired gains per number of labelled scans and init; a scan's score is the mean over its classes.

    A gain is paired: the difference of one seed and one scan.

    Raises:
        DataError: An init was scored on other seeds, scans or classes than scratch, or no reference has any class.
    """
    rows = []
    for num_labelled in sorted({score.num_labelled for score in scores}):
        group = [score for score in scores if score.num_labelled == num_labelled]
        scratch = score_table([score for score in group if score.init == SCRATCH])
        for init in dict.fromkeys(score.init for score in scores):
            check_pairs(group, init=init)
            of_init = [score for score in group if score.init == init]
            table = score_table(of_init)
            gain = paired_interval(table - scratch) if init != SCRATCH else None
            rows.append(comparison_row(of_init, dice=paired_interval(table), gain=gain))
    return Comparison(tuple(rows), tuple(scores))


def comparison_row(scores: Sequence[Score], *, dice: Interval | None, gain: Interval | None) -> ComparisonRow:
    """The row of one init at one number of labelled scans. Raises DataError without a Dice to show."""
    if dice is None:
        raise DataError(
            "No test scan has any class in its label, so there is neither a Dice nor an interval. Ingest test scans "
            "with labelled voxels, or move some to the test split with --splits."
        )
    cases = [score.case for score in scores]
    return ComparisonRow(
        num_labelled=scores[0].num_labelled,
        init=scores[0].init,
        dice=dice,
        gain=gain,
        class_dice=class_means(cases, classes=tuple(cases[0].dice)),
        empty=sum(len(case.empty) for case in cases),
        false_alarms=sum(len(case.false_alarms) for case in cases),
    )


def check_pairs(scores: Sequence[Score], *, init: str) -> None:
    """Raise DataError unless `init` and scratch were scored on the same classes of the same scans with the same seeds.

    Without this check, a missing partner would shift the paired difference silently: scans differ by far more than
    inits do.
    """
    of_init, of_scratch = (
        {(score.seed, score.case.scan_id, scored_classes(score.case)) for score in scores if score.init == name}
        for name in (init, SCRATCH)
    )
    if unpaired := sorted(of_init ^ of_scratch):
        seed, scan, classes = unpaired[0]
        has, lacks = (init, SCRATCH) if unpaired[0] in of_init else (SCRATCH, init)
        names = " and ".join(map(str, classes)) or "none"
        raise DataError(
            f"With {scores[0].num_labelled} labelled scans '{init}' and scratch were not scored on the same scans and "
            f"classes: {len(unpaired)} scores have no partner (first: seed {seed}, scan {scan}, classes {names}, which "
            f"{has} has and {lacks} has not). Remove the runs of one of the two, and call this again."
        )


def scored_classes(case: CaseScore) -> tuple[int, ...]:
    """The classes that the reference of a case has."""
    return tuple(label for label, dice in case.dice.items() if dice is not None)


def score_table(scores: Sequence[Score]) -> npt.NDArray[np.float64]:
    """(seeds, scans) mean Dice over classes, seeds and scans in sorted order; NaN for a scan without any class."""
    seeds = sorted({score.seed for score in scores})
    scans = sorted({score.case.scan_id for score in scores})
    table = np.full((len(seeds), len(scans)), np.nan)
    for score in scores:
        if values := [dice for dice in score.case.dice.values() if dice is not None]:
            table[seeds.index(score.seed), scans.index(score.case.scan_id)] = np.mean(values)
    return table
