"""Energies, embeddings and terms of the batches since the last evaluation."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medssl.diagnostics.measures import energy_gap, relative_std, uniformity
from medssl.diagnostics.spectrum import rankme
from medssl.pretext.task import Step

WINDOW = 1024  # energies and embeddings of the last steps
MIN_EMBEDDINGS, MIN_AT_START = 16, 4
MAX_UNIFORMITY = 512  # pairs grow with the square
# Names in `Step.terms` by which tasks report what only they can know, all fractions between 0 and 1; the metric they
# become; and which value is the worst if several parts of a combined task report it.
TERMS: Mapping[str, tuple[str, Callable[[Iterable[float]], float]]] = {
    "teacher_entropy_fraction": ("teacher_entropy", max),
    "prototypes_used": ("prototypes_used", min),
    "clusters_used": ("prototypes_used", min),
    "active_units": ("active_units", min),
    "used_atoms": ("used_atoms", min),
}


class Observed:
    """Energies, embeddings and terms of a task, or of one part of a combined task; one batch is too few to judge."""

    def __init__(self) -> None:
        self._positive: deque[float] = deque(maxlen=WINDOW)
        self._negative: deque[float] = deque(maxlen=WINDOW)
        self._embeddings: list[Tensor] = []
        self._steps: list[dict[str, float]] = []
        # Of the first batch or two, before anything can have collapsed: later ones are compared with it.
        self.start: dict[str, float] = {}

    def add(self, step: Step) -> None:
        """Remember a batch."""
        self._steps.append(_step_numbers(step))
        if step.negative_energy is not None:
            self._positive.extend(_scored(step.energy, step.valid_fraction))
            self._negative.extend(_scored(step.negative_energy, step.valid_fraction))
        if step.embeddings is not None and (
            not self._embeddings or self._embeddings[0].shape[1] == step.embeddings.shape[1]
        ):
            self._embeddings.append(step.embeddings.detach().float().cpu())
            if not self.start and sum(map(len, self._embeddings)) >= MIN_AT_START:
                start = torch.cat(self._embeddings)
                self.start = {"embedding_std": relative_std(start), "embedding_rank_fraction": rank_fraction(start)}
            while sum(map(len, self._embeddings[1:])) >= WINDOW:
                self._embeddings.pop(0)

    def numbers(self) -> dict[str, float]:
        """Metrics of the remembered batches."""
        return self._embedding_numbers() | self._energy_numbers() | _means(self._steps)

    def clear(self) -> None:
        """Forget the batches, but not the start."""
        for buffer in (self._positive, self._negative, self._embeddings, self._steps):
            buffer.clear()

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return {
            "right": list(self._positive),
            "wrong": list(self._negative),
            "embeddings": torch.cat(self._embeddings) if self._embeddings else None,
            "steps": list(self._steps),
            "start": self.start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._positive, self._negative = deque(state["right"], WINDOW), deque(state["wrong"], WINDOW)
        self._embeddings = [state["embeddings"]] if state["embeddings"] is not None else []
        self._steps = [dict(numbers) for numbers in state["steps"]]
        self.start = dict(state["start"])

    def _embedding_numbers(self) -> dict[str, float]:
        if sum(map(len, self._embeddings)) < MIN_EMBEDDINGS:
            return {}
        embeddings = torch.cat(self._embeddings)[-WINDOW:]
        return {
            "embedding_std": relative_std(embeddings),
            "embedding_rank": rankme(embeddings, centred=True),
            "embedding_rank_fraction": rank_fraction(embeddings),
            "embedding_uniformity": uniformity(embeddings[-MAX_UNIFORMITY:]),
        }

    def _energy_numbers(self) -> dict[str, float]:
        if not self._positive or not self._negative:
            return {}
        gap = energy_gap(torch.tensor(list(self._positive)), torch.tensor(list(self._negative)))
        return {"energy_gap": gap.mean, "energy_auc": gap.auc, "energy_pairs": float(gap.pairs)}


def rank_fraction(features: Float[Tensor, "n f"]) -> float:
    """Centred effective rank over the largest that N features of F channels can have."""
    count, channels = features.shape
    return rankme(features, centred=True) / max(1, min(count - 1, channels))


def worst_of_parts(parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The energy metrics of the part that tells pairs apart worst, and the embedding metrics of the part whose
    embeddings spread least.
    """
    worst_numbers: dict[str, float] = {}
    for kind, measure in (("energy_", "energy_auc"), ("embedding_", "embedding_std")):
        measured = [numbers for numbers in parts.values() if measure in numbers]
        if measured:
            worst = min(measured, key=lambda numbers: numbers[measure])
            worst_numbers |= {name: value for name, value in worst.items() if name.startswith(kind)}
    return worst_numbers


def _scored(energy: Tensor, valid_fraction: Tensor | None) -> list[float]:
    """Energies of the samples that had valid voxels to score; those of the others are 0 and would blur the gap."""
    values = energy.detach().flatten()
    if valid_fraction is not None and len(valid_fraction) == len(values):
        values = values[valid_fraction > 0]
    energies: list[float] = values.tolist()
    return energies


def _step_numbers(step: Step) -> dict[str, float]:
    """Loss, loss over that of the trivial solution, and the task's own terms under the metrics of `TERMS`."""
    numbers = {"loss": float(step.loss.detach())}
    trivial = float(step.trivial_loss or step.terms.get("trivial_loss") or 0.0)
    if trivial > 0:
        numbers["loss_over_trivial"] = numbers["loss"] / trivial
    reported: dict[str, list[float]] = {}
    for key, term in step.terms.items():
        name = key.rpartition("/")[2]  # terms of a combined task are PART/NAME
        if name in TERMS:
            reported.setdefault(name, []).append(float(term.detach()))
    for name, values in reported.items():
        metric, worst = TERMS[name]
        numbers[metric] = worst([*values, numbers[metric]] if metric in numbers else values)
    return numbers


def _means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for numbers in steps for name in numbers}
    values = {name: [numbers[name] for numbers in steps if name in numbers] for name in sorted(names)}
    return {name: sum(series) / len(series) for name, series in values.items()}
