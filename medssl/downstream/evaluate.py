"""Dice per class and case of a segmentation network on labelled scans of the store."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl.downstream.segmentation import predict_labels
from medssl.encoders.network import SegmentationNetwork
from medssl.store.volumes import StoredVolume


@dataclass(frozen=True)
class CaseScore:
    """Dice of one scan.

    dice: class value to Dice in [0, 1]; None where neither reference nor prediction has the class.
    """

    scan_id: str
    dice: dict[int, float | None]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of scans.

    empty: per class, the number of scans whose reference lacks it. There a prediction that has voxels of the class
    counts as Dice 0, one that has none is left out of the mean (it would count as a perfect 1 for doing nothing).
    """

    cases: tuple[CaseScore, ...]
    empty: dict[int, int]

    def mean(self) -> float:
        """Mean over classes of the class means."""
        return float(np.mean([self.class_mean(label) for label in self.empty]))

    def class_mean(self, label: int) -> float:
        """Mean over the scans that count; NaN when none does."""
        values = [score for case in self.cases if (score := case.dice[label]) is not None]
        return float(np.mean(values)) if values else float("nan")

    def as_dict(self, label_names: Mapping[int, str]) -> dict[str, Any]:
        """Plain types, for the run folder."""
        classes = {
            str(label): {
                "name": label_names.get(label, str(label)),
                "dice": self.class_mean(label),
                "empty": self.empty[label],
            }
            for label in self.empty
        }
        return {"dice": self.mean(), "classes": classes, "cases": [asdict(case) for case in self.cases]}


def evaluate(
    network: SegmentationNetwork,
    scans: Sequence[StoredVolume],
    *,
    labels: Sequence[int],
    patch: tuple[int, int, int],
    overlap: float,
    device: torch.device,
) -> Evaluation:
    """Predict each scan on the store's grid and compare with its label. labels: foreground class values."""
    network.eval()
    cases = []
    empty = dict.fromkeys(labels, 0)
    for scan in scans:
        guess = predict_stored(network, scan, patch=patch, overlap=overlap, device=device)
        reference = torch.from_numpy(scan.read_label((0, 0, 0), scan.shape))
        for label in labels:
            empty[label] += int(not bool((reference == label).any()))
        cases.append(CaseScore(scan.scan_id, {label: dice(guess == label, reference == label) for label in labels}))
    return Evaluation(tuple(cases), empty)


def predict_stored(
    network: SegmentationNetwork,
    scan: StoredVolume,
    *,
    patch: tuple[int, int, int],
    overlap: float,
    device: torch.device,
) -> Tensor:
    """(D, H, W) uint8 labels of a stored scan, on the CPU."""
    image = scan.normalised().to(device)
    outside = scan.normalisation.outside
    return predict_labels(network, image, patch=patch, overlap=overlap, outside=outside).cpu()


def dice(guess: Tensor, reference: Tensor) -> float | None:
    """2|A∩B| / (|A|+|B|) of two bool masks; None when both are empty."""
    total = int(guess.sum()) + int(reference.sum())
    return 2 * int((guess & reference).sum()) / total if total else None
