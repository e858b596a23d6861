"""Watches one pretraining.

Every N steps the encoder sees the same fixed images, and a verdict says what the numbers mean.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medssl.diagnostics.energy import energy_gap
from medssl.diagnostics.features import Features, extract_features
from medssl.diagnostics.groups import lidar
from medssl.diagnostics.spectrum import alpha_req, eigenvalues, participation_ratio, rankme
from medssl.diagnostics.spread import alignment, relative_std, root_mean_square, uniformity
from medssl.diagnostics.verdict import Verdict, judge
from medssl.encoders.encoder import Encoder
from medssl.pretext.step import Step

PREFIX = "diagnostics/"
MOST_KEPT = 1024  # energies and embeddings of the last steps
FEWEST_EMBEDDINGS, FEWEST_AT_START = 16, 4
MOST_UNIFORMITY = 512  # pairs grow with the square
HISTORY = 64
# Names in `Step.terms` that tasks use for what only they can know, all of them shares between 0 and 1; what we call it;
# and which is the worst where several parts of a combined task say it.
TERMS: Mapping[str, tuple[str, Callable[[Iterable[float]], float]]] = {
    "teacher_entropy_share": ("teacher_entropy", max),
    "prototypes_used": ("prototypes_used", min),
    "clusters_used": ("prototypes_used", min),
    "active_units": ("active_units", min),
    "used_atoms": ("used_atoms", min),
}


@dataclass(frozen=True)
class Diagnosis:
    """metrics: finite numbers under `diagnostics/...`, ready for the run. verdict: what they mean."""

    metrics: dict[str, float]
    verdict: Verdict


class CollapseMonitor:
    """Call `observe` at logging steps and `evaluate` every N steps, first before any training; both on one rank.

    Draws no random numbers and leaves no gradient, so that a training with it equals one without. `state_dict` goes
    into the checkpoint, since verdicts compare with earlier evaluations.
    """

    def __init__(self, *, views_per_scan: int = 1) -> None:
        """views_per_scan: how many fixed images in a row show one scan; from 2 on, LiDAR and alignment are measured.

        All else is measured on the first view of each scan, and so does not depend on how many there are.
        """
        self.views_per_scan = views_per_scan
        self._history: list[dict[str, float]] = []
        self._right: deque[float] = deque(maxlen=MOST_KEPT)
        self._wrong: deque[float] = deque(maxlen=MOST_KEPT)
        self._embeddings: list[Tensor] = []
        self._steps: list[dict[str, float]] = []
        self._start: dict[str, float] = {}

    def observe(self, step: Step) -> None:
        """Keep what a batch says until the next evaluation: one batch alone is too few to judge."""
        self._steps.append(_step_numbers(step))
        if step.negative_energy is not None:
            self._right.extend(_judged(step.energy, step.scored))
            self._wrong.extend(_judged(step.negative_energy, step.scored))
        if step.embeddings is not None and (
            not self._embeddings or self._embeddings[0].shape[1] == step.embeddings.shape[1]
        ):
            self._embeddings.append(step.embeddings.detach().float().cpu())
            if not self._start and sum(map(len, self._embeddings)) >= FEWEST_AT_START:
                # Of the first batch or two, before anything can have collapsed: what later ones are held against.
                start = torch.cat(self._embeddings)
                self._start = {"embedding_std": relative_std(start), "embedding_rank_share": rank_share(start)}
            while sum(map(len, self._embeddings[1:])) >= MOST_KEPT:
                self._embeddings.pop(0)

    def evaluate(
        self, encoder: Encoder, fixed_images: Float[Tensor, "n c d h w"], step: Step | None = None
    ) -> Diagnosis:
        """Measure the encoder on fixed images and judge. step: that of the moment; it is observed too."""
        if step is not None:
            self.observe(step)
        views = [extract_features(encoder, fixed_images[k :: self.views_per_scan]) for k in range(self.views_per_scan)]
        numbers = feature_numbers(views[0]) | view_numbers([view.pooled for view in views])
        numbers |= self._embedding_numbers() | self._energy_numbers() | _means(self._steps)
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        # The first evaluation stays: it is the reference. Made before training, it has no embeddings of its own.
        reference = [self._start | first for first in self._history[:1]]
        self._history = [*reference, *self._history[1:][-HISTORY:], numbers]
        self._right.clear()
        self._wrong.clear()
        self._embeddings.clear()
        self._steps.clear()
        return Diagnosis({f"{PREFIX}{name}": value for name, value in numbers.items()}, judge(self._history))

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        kept = torch.cat(self._embeddings) if self._embeddings else None
        return {
            "history": self._history,
            "right": list(self._right),
            "wrong": list(self._wrong),
            "embeddings": kept,
            "steps": list(self._steps),
            "start": self._start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` left off."""
        self._history = [dict(numbers) for numbers in state["history"]]
        self._right, self._wrong = deque(state["right"], MOST_KEPT), deque(state["wrong"], MOST_KEPT)
        self._embeddings = [state["embeddings"]] if state["embeddings"] is not None else []
        self._steps = [dict(numbers) for numbers in state["steps"]]
        self._start = dict(state["start"])

    def _embedding_numbers(self) -> dict[str, float]:
        if sum(map(len, self._embeddings)) < FEWEST_EMBEDDINGS:
            return {}
        embeddings = torch.cat(self._embeddings)[-MOST_KEPT:]
        return {
            "embedding_std": relative_std(embeddings),
            "embedding_rank": rankme(embeddings, centred=True),
            "embedding_rank_share": rank_share(embeddings),
            "embedding_uniformity": uniformity(embeddings[-MOST_UNIFORMITY:]),
        }

    def _energy_numbers(self) -> dict[str, float]:
        if not self._right or not self._wrong:
            return {}
        gap = energy_gap(torch.tensor(list(self._right)), torch.tensor(list(self._wrong)))
        return {"energy_gap": gap.mean, "energy_auc": gap.auc, "energy_pairs": float(gap.pairs)}


def feature_numbers(features: Features) -> dict[str, float]:
    """Every measure of pooled and of dense features, by name."""
    numbers: dict[str, float] = {}
    for kind, values in (("pooled", features.pooled), ("dense", features.dense)):
        spectrum = eigenvalues(values)
        numbers |= {
            f"{kind}_std": relative_std(values),
            f"{kind}_rank": rankme(values, centred=True),
            f"{kind}_rank_share": rank_share(values),
            f"{kind}_rankme": rankme(values),
            f"{kind}_participation": participation_ratio(spectrum),
            f"{kind}_alpha": alpha_req(spectrum),
            f"{kind}_rms": root_mean_square(values),
        }
    return numbers


def view_numbers(views: Sequence[Float[Tensor, "scans f"]]) -> dict[str, float]:
    """What only several views of the same scans tell; nothing for one view or one scan."""
    if len(views) < 2 or len(views[0]) < 2:
        return {}
    return {"pooled_lidar": lidar(torch.stack(list(views), dim=1)), "pooled_alignment": alignment(views[0], views[1])}


def rank_share(features: Float[Tensor, "n f"]) -> float:
    """Centred effective rank as a share of the largest that N features of F channels can have."""
    count, channels = features.shape
    return rankme(features, centred=True) / max(1, min(count - 1, channels))


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
    trivial = float(step.trivial or step.terms.get("trivial") or 0.0)
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
