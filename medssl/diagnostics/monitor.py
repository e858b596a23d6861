"""Watches one pretraining: every N steps the encoder sees the same fixed images, and a verdict says what the numbers
mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medssl.diagnostics.features import Features, extract_features
from medssl.diagnostics.measures import alignment, lidar, relative_std, root_mean_square
from medssl.diagnostics.observed import Observed, rank_fraction, worst_of_parts
from medssl.diagnostics.spectrum import alpha_req, eigenvalues, participation_ratio, rankme
from medssl.diagnostics.verdict import Verdict, judge
from medssl.encoders.encoder import Encoder
from medssl.pretext.task import Step

PREFIX = "diagnostics/"
HISTORY = 64


@dataclass(frozen=True)
class Diagnosis:
    """One evaluation. metrics: finite numbers under `diagnostics/...`, ready for the run. verdict: what they mean."""

    metrics: dict[str, float]
    verdict: Verdict


class CollapseMonitor:
    """Call `observe` at logging steps and `evaluate` every N steps, first before any training; both on one rank.

    Draws no random numbers and leaves no gradient: a training with it equals one without. `state_dict` goes into the
    checkpoint, since verdicts compare with earlier evaluations.

    Args:
        views_per_scan: number of consecutive fixed images that show one scan; from 2 on, LiDAR and alignment are
            measured. Everything else is measured on the first view of each scan, so it does not depend on the number.
    """

    def __init__(self, *, views_per_scan: int = 1) -> None:
        self.views_per_scan = views_per_scan
        self._history: list[dict[str, float]] = []
        self._task = Observed()
        self._parts: dict[str, Observed] = {}  # of a combined task

    def observe(self, step: Step) -> None:
        """Remember a batch until the next evaluation."""
        self._task.add(step)
        for name, part in step.parts.items():
            self._parts.setdefault(name, Observed()).add(part)

    def evaluate(
        self, encoder: Encoder, fixed_images: Float[Tensor, "n c d h w"], step: Step | None = None
    ) -> Diagnosis:
        """Measure the encoder on fixed images and judge. step: the current one, which is observed too."""
        if step is not None:
            self.observe(step)
        views = [extract_features(encoder, fixed_images[k :: self.views_per_scan]) for k in range(self.views_per_scan)]
        numbers = feature_numbers(views[0]) | view_numbers([view.pooled for view in views])
        numbers |= self._observed_numbers()
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        # The first evaluation stays, as the reference. Made before training, it lacks embeddings: those of the first
        # batches take their place.
        reference = [self._start() | first for first in self._history[:1]]
        self._history = [*reference, *self._history[1:][-HISTORY:], numbers]
        for observed in (self._task, *self._parts.values()):
            observed.clear()
        return Diagnosis({f"{PREFIX}{name}": value for name, value in numbers.items()}, judge(self._history))

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return {"history": self._history, **self._task.state_dict(), "parts": parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._history = [dict(numbers) for numbers in state["history"]]
        self._task.load_state_dict(state)
        self._parts = {}
        for name, part in state.get("parts", {}).items():
            self._parts[name] = Observed()
            self._parts[name].load_state_dict(part)

    def _observed_numbers(self) -> dict[str, float]:
        """Numbers of the task; and of each part under its name, with the worst of them in place of the task's."""
        parts = {name: part.numbers() for name, part in self._parts.items()}
        by_part = {f"{name}/{key}": value for name, numbers in parts.items() for key, value in numbers.items()}
        return self._task.numbers() | worst_of_parts(parts) | by_part

    def _start(self) -> dict[str, float]:
        by_part = {f"{name}/{key}": value for name, part in self._parts.items() for key, value in part.start.items()}
        return self._task.start | by_part


def feature_numbers(features: Features) -> dict[str, float]:
    """Every measure of pooled and of dense features, by name."""
    numbers: dict[str, float] = {}
    for kind, values in (("pooled", features.pooled), ("dense", features.dense)):
        spectrum = eigenvalues(values)
        numbers |= {
            f"{kind}_std": relative_std(values),
            f"{kind}_rank": rankme(values, centred=True),
            f"{kind}_rank_fraction": rank_fraction(values),
            f"{kind}_rankme": rankme(values),
            f"{kind}_participation": participation_ratio(spectrum),
            f"{kind}_alpha": alpha_req(spectrum),
            f"{kind}_rms": root_mean_square(values),
        }
    return numbers


def view_numbers(views: Sequence[Float[Tensor, "scans f"]]) -> dict[str, float]:
    """Measures that need several views of the same scans; none for one view or one scan."""
    if len(views) < 2 or len(views[0]) < 2:
        return {}
    return {"pooled_lidar": lidar(torch.stack(list(views), dim=1)), "pooled_alignment": alignment(views[0], views[1])}
