"""Dice per class and case of a segmentation network on labelled scans of the store.

The reference alone decides which classes of a scan are judged, so that two networks are judged on the same ones: a
class that the reference lacks has no Dice, whatever was predicted (the default of MONAI's DiceMetric, ignore_empty);
voxels of it are a false alarm, which is counted by itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl.downstream.segmentation import predict_labels
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume

FORMAT = 2  # of evaluation.json; 1, which did not say so, gave a false alarm Dice 0 and silence none


@dataclass(frozen=True)
class CaseScore:
    """One scan.

    dice: class value to Dice in [0, 1]; None where the reference lacks the class. empty: the classes that it lacks.
    false_alarms: those of them that were predicted.
    """

    scan_id: str
    dice: dict[int, float | None]
    empty: tuple[int, ...]
    false_alarms: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of scans. names: of the foreground classes, by value."""

    cases: tuple[CaseScore, ...]
    names: Mapping[int, str]

    def mean(self) -> float | None:
        """Mean of the class means, over the classes that have one; None when none has."""
        means = [mean for label in self.names if (mean := self.class_mean(label)) is not None]
        return float(np.mean(means)) if means else None

    def class_mean(self, label: int) -> float | None:
        """Mean over the scans whose reference has the class; None when none has."""
        values = [score for case in self.cases if (score := case.dice[label]) is not None]
        return float(np.mean(values)) if values else None

    def empty(self, label: int) -> int:
        """Number of scans whose reference lacks the class."""
        return sum(label in case.empty for case in self.cases)

    def false_alarms(self, label: int) -> int:
        """Number of those in which it was predicted."""
        return sum(label in case.false_alarms for case in self.cases)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for the run folder."""
        classes = {
            str(label): {
                "name": name,
                "dice": self.class_mean(label),
                "empty": self.empty(label),
                "false_alarms": self.false_alarms(label),
            }
            for label, name in self.names.items()
        }
        cases = [asdict(case) for case in self.cases]
        return {"format": FORMAT, "dice": self.mean(), "classes": classes, "cases": cases}

    def sentences(self) -> list[str]:
        """What a person should know: the mean, which classes it is about, and false alarms."""
        mean, total = self.mean(), len(self.cases)
        said = [f"Dice on {total} test scans: {'none' if mean is None else f'{mean:.3f}'}"]
        for label, name in self.names.items():
            empty = self.empty(label)
            if empty == total:
                said.append(f"class '{name}' is in no test scan: it has no Dice, and no part in the mean")
            if empty:
                said.append(f"class '{name}': {self.false_alarms(label)} false alarms in {empty} test scans without it")
        return said


def read_cases(path: Path) -> list[dict[str, Any]] | None:
    """The cases in an evaluation.json; None where there is none, or one that another version of medssl wrote, whose
    Dice counts empty references differently.
    """
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return list(content["cases"]) if content.get("format") == FORMAT else None


def evaluate(
    network: SegmentationNetwork,
    scans: Sequence[StoredVolume],
    *,
    names: Mapping[int, str],
    patch: Shape3D,
    overlap: float,
    device: torch.device,
) -> Evaluation:
    """Predict each scan on the store's grid and compare with its label. names: of the foreground classes, by value."""
    network.eval()
    cases = []
    for scan in scans:
        guess = predict_stored(network, scan, patch=patch, overlap=overlap, device=device)
        reference = torch.from_numpy(scan.read_label((0, 0, 0), scan.shape))
        cases.append(case_score(scan.scan_id, guess, reference, labels=tuple(names)))
    return Evaluation(tuple(cases), names)


def case_score(scan_id: str, guess: Tensor, reference: Tensor, *, labels: Sequence[int]) -> CaseScore:
    """Score of one scan from its predicted and its true class values."""
    scores = {label: dice(guess == label, reference == label) for label in labels}
    empty = tuple(label for label, score in scores.items() if score is None)
    alarms = tuple(label for label in empty if bool((guess == label).any()))
    return CaseScore(scan_id, scores, empty, alarms)


def predict_stored(
    network: SegmentationNetwork,
    scan: StoredVolume,
    *,
    patch: Shape3D,
    overlap: float,
    device: torch.device,
) -> Tensor:
    """(D, H, W) uint8 labels of a stored scan, on the CPU."""
    image = scan.normalised().to(device)
    pad_value = scan.normalisation.pad_value
    return predict_labels(network, image, patch=patch, overlap=overlap, pad_value=pad_value).cpu()


def dice(guess: Tensor, reference: Tensor) -> float | None:
    """2|A∩B| / (|A|+|B|) of two bool masks; None when the reference is empty."""
    if not bool(reference.any()):
        return None
    return 2 * int((guess & reference).sum()) / (int(guess.sum()) + int(reference.sum()))
