"""Dice per class and scan, and evaluation.json, which keeps it in the run folder.

The reference alone decides which classes of a scan count, so that two networks are compared on the same ones. A class
that the reference lacks has no Dice, whatever was predicted (the default of MONAI's DiceMetric, ignore_empty); voxels
predicted for it are a false alarm, which is counted separately.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from medssl.files import write_bytes
from medssl.formats import check_format

FILE_NAME = "evaluation.json"
FORMAT = 2


@dataclass(frozen=True)
class CaseScore:
    """The scores of one scan.

    Attributes:
        scan_id: Pseudonym of the scan.
        dice: Class value to Dice in [0, 1]; None where the reference lacks the class.
        false_alarms: The classes that the reference lacks and that were predicted all the same.
    """

    scan_id: str
    dice: dict[int, float | None]
    false_alarms: tuple[int, ...] = ()

    @property
    def empty(self) -> tuple[int, ...]:
        """The classes that the reference lacks."""
        return tuple(label for label, dice in self.dice.items() if dice is None)


_CASES = TypeAdapter(tuple[CaseScore, ...])


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set of scans.

    Attributes:
        cases: One entry per scan.
        names: Of the foreground classes, by value.
    """

    cases: tuple[CaseScore, ...]
    names: Mapping[int, str]

    @property
    def dice(self) -> float | None:
        """Mean of the class means over the classes that have one, in [0, 1]; None where none has."""
        means = [mean for mean in self.class_dice.values() if mean is not None]
        return float(np.mean(means)) if means else None

    @property
    def class_dice(self) -> dict[int, float | None]:
        """Class value to mean Dice over the scans whose reference has the class; None where none has."""
        return class_means(self.cases, classes=tuple(self.names))

    def empty(self, label: int) -> int:
        """Number of scans whose reference lacks the class."""
        return sum(label in case.empty for case in self.cases)

    def false_alarms(self, label: int) -> int:
        """Number of those in which the class was predicted."""
        return sum(label in case.false_alarms for case in self.cases)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for evaluation.json."""
        classes = {
            str(label): {
                "name": self.names[label],
                "dice": dice,
                "empty": self.empty(label),
                "false_alarms": self.false_alarms(label),
            }
            for label, dice in self.class_dice.items()
        }
        cases = [{**asdict(case), "empty": case.empty} for case in self.cases]
        writer = version("medssl")
        return {"format": FORMAT, "medssl": writer, "dice": self.dice, "classes": classes, "cases": cases}

    def write(self, folder: Path) -> None:
        """Write FOLDER/evaluation.json."""
        content = json.dumps(self.as_dict(), indent=1, allow_nan=False)
        write_bytes(folder / FILE_NAME, content.encode())

    def sentences(self) -> list[str]:
        """The mean Dice, the classes that it leaves out, and false alarms, for a person to read."""
        total = len(self.cases)
        lines = [f"Dice on {total} test scans: {'none' if self.dice is None else f'{self.dice:.3f}'}"]
        for label, name in self.names.items():
            empty = self.empty(label)
            if empty == total:
                lines.append(f"class '{name}' is in no test scan: it has no Dice, and no part in the mean")
            if empty:
                alarms = self.false_alarms(label)
                lines.append(f"class '{name}': {alarms} false alarms in {empty} test scans without it")
        return lines


def read_evaluation(folder: Path) -> Evaluation | None:
    """The evaluation of a run; None where it has none. Raises DataError where it is of another format."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    found, writer, remedy = content.get("format"), content.get("medssl"), "remove the file to have the run scored again"
    check_format(path, found, FORMAT, writer=writer, remedy=remedy)
    names = {int(label): str(of_class["name"]) for label, of_class in content["classes"].items()}
    return Evaluation(_CASES.validate_python(content["cases"]), names)


def class_means(cases: Sequence[CaseScore], *, classes: Sequence[int]) -> dict[int, float | None]:
    """Mean Dice per class over the cases whose reference has it; None where none has."""
    values = {label: [dice for case in cases if (dice := case.dice[label]) is not None] for label in classes}
    return {label: float(np.mean(scores)) if scores else None for label, scores in values.items()}


def case_score(
    scan_id: str, predicted: npt.NDArray[np.uint8], reference: npt.NDArray[Any], *, labels: Sequence[int]
) -> CaseScore:
    """The scores of one scan from its predicted and its reference class values."""
    scores = {label: dice(predicted == label, reference == label) for label in labels}
    alarms = (label for label, score in scores.items() if score is None and bool((predicted == label).any()))
    return CaseScore(scan_id, scores, tuple(alarms))


def dice(predicted: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> float | None:
    """2|A∩B| / (|A|+|B|) of two masks; None where the reference is empty."""
    if not reference.any():
        return None
    return 2 * int((predicted & reference).sum()) / (int(predicted.sum()) + int(reference.sum()))
