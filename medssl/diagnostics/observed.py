"""What the batches since the last evaluation said of one task."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medssl.diagnostics.measures import energy_gap, relative_std, uniformity
from medssl.diagnostics.spectrum import rankme
from medssl.pretext.task import Step

MAX_KEPT = 1024  # energies and embeddings of the last steps
MIN_EMBEDDINGS, MIN_AT_START = 16, 4
MAX_UNIFORMITY = 512  # pairs grow with the square
# Names in `Step.terms` that tasks use for what only they can know, all of them shares between 0 and 1; what we call it;
# and which is the worst where several parts of a combined task say it.
TERMS: Mapping[str, tuple[str, Callable[[Iterable[float]], float]]] = {
    "teacher_entropy_fraction": ("teacher_entropy", max),
    "prototypes_used": ("prototypes_used", min),
    "clusters_used": ("prototypes_used", min),
    "active_units": ("active_units", min),
    "used_atoms": ("used_atoms", min),
}


class Observed:
    """Energies, embeddings and terms of a task, or of one part of a combined one: a batch alone is too few to judge."""

    def __init__(self) -> None:
        self._right: deque[float] = deque(maxlen=MAX_KEPT)
        self._wrong: deque[float] = deque(maxlen=MAX_KEPT)
        self._embeddings: list[Tensor] = []
        self._steps: list[dict[str, float]] = []
        # Of the first batch or two, before anything can have collapsed: what later ones are held against.
        self.start: dict[str, float] = {}

    def add(self, step: Step) -> None:
        """Keep what a batch says."""
        self._steps.append(_step_numbers(step))
        if step.negative_energy is not None:
            self._right.extend(_judged(step.energy, step.valid_fraction))
            self._wrong.extend(_judged(step.negative_energy, step.valid_fraction))
        if step.embeddings is not None and (
            not self._embeddings or self._embeddings[0].shape[1] == step.embeddings.shape[1]
        ):
            self._embeddings.append(step.embeddings.detach().float().cpu())
            if not self.start and sum(map(len, self._embeddings)) >= MIN_AT_START:
                start = torch.cat(self._embeddings)
                self.start = {"embedding_std": relative_std(start), "embedding_rank_share": rank_share(start)}
            while sum(map(len, self._embeddings[1:])) >= MAX_KEPT:
                self._embeddings.pop(0)

    def numbers(self) -> dict[str, float]:
        """What was kept, in numbers."""
        return self._embedding_numbers() | self._energy_numbers() | _means(self._steps)

    def clear(self) -> None:
        """Start anew; the start stays."""
        for kept in (self._right, self._wrong, self._embeddings, self._steps):
            kept.clear()

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return {
            "right": list(self._right),
            "wrong": list(self._wrong),
            "embeddings": torch.cat(self._embeddings) if self._embeddings else None,
            "steps": list(self._steps),
            "start": self.start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` left off."""
        self._right, self._wrong = deque(state["right"], MAX_KEPT), deque(state["wrong"], MAX_KEPT)
        self._embeddings = [state["embeddings"]] if state["embeddings"] is not None else []
        self._steps = [dict(numbers) for numbers in state["steps"]]
        self.start = dict(state["start"])

    def _embedding_numbers(self) -> dict[str, float]:
        if sum(map(len, self._embeddings)) < MIN_EMBEDDINGS:
            return {}
        embeddings = torch.cat(self._embeddings)[-MAX_KEPT:]
        return {
            "embedding_std": relative_std(embeddings),
            "embedding_rank": rankme(embeddings, centred=True),
            "embedding_rank_share": rank_share(embeddings),
            "embedding_uniformity": uniformity(embeddings[-MAX_UNIFORMITY:]),
        }

    def _energy_numbers(self) -> dict[str, float]:
        if not self._right or not self._wrong:
            return {}
        gap = energy_gap(torch.tensor(list(self._right)), torch.tensor(list(self._wrong)))
        return {"energy_gap": gap.mean, "energy_auc": gap.auc, "energy_pairs": float(gap.pairs)}


def rank_share(features: Float[Tensor, "n f"]) -> float:
    """Centred effective rank as a share of the largest that N features of F channels can have."""
    count, channels = features.shape
    return rankme(features, centred=True) / max(1, min(count - 1, channels))


def worst_of_parts(parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The energy numbers of the part that tells pairs apart worst, and the embedding numbers of the one whose
    embeddings spread least.
    """
    found: dict[str, float] = {}
    for kind, measure in (("energy_", "energy_auc"), ("embedding_", "embedding_std")):
        having = [numbers for numbers in parts.values() if measure in numbers]
        if having:
            worst = min(having, key=lambda numbers: numbers[measure])
            found |= {name: value for name, value in worst.items() if name.startswith(kind)}
    return found


def _judged(energy: Tensor, scored: Tensor | None) -> list[float]:
    """Energies of the samples that had something to score; the 0 of the others tells no pair from another."""
    values = energy.detach().flatten()
    if scored is not None and len(scored) == len(values):
        values = values[scored > 0]
    found: list[float] = values.tolist()
    return found


def _step_numbers(step: Step) -> dict[str, float]:
    """Loss, also over that of the trivial solution, and the terms by which a task tells what only it can know."""
    numbers = {"loss": float(step.loss.detach())}
    trivial = float(step.trivial_loss or step.terms.get("trivial_loss") or 0.0)
    if trivial > 0:
        numbers["loss_over_trivial"] = numbers["loss"] / trivial
    said: dict[str, list[float]] = {}
    for key, term in step.terms.items():
        name = key.rpartition("/")[2]  # the parts of a combined task stand before a slash
        if name in TERMS:
            said.setdefault(name, []).append(float(term.detach()))
    for name, values in said.items():
        ours, worst = TERMS[name]
        numbers[ours] = worst([*values, numbers[ours]] if ours in numbers else values)
    return numbers


def _means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for numbers in steps for name in numbers}
    values = {name: [numbers[name] for numbers in steps if name in numbers] for name in sorted(names)}
    return {name: sum(some) / len(some) for name, some in values.items()}
