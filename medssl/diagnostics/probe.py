"""How much of a segmentation can be read off frozen features with one matrix: ridge regression in closed form.

The probe sees detached features only, so it never touches the encoder's gradients.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from medssl.diagnostics.features import CHUNK, evaluating
from medssl.encoders.encoder import Encoder

RIDGE = 1e-3
MOST_PLACES = 20_000


@dataclass(frozen=True)
class ProbeScore:
    """On images that the probe was not fitted on.

    Dice: per foreground class; classes that no image has are left out.
    """

    dice: dict[int, float]
    accuracy: float

    @property
    def mean_dice(self) -> float:
        """Mean over foreground classes; 0 where there is none."""
        return sum(self.dice.values()) / len(self.dice) if self.dice else 0.0


@dataclass(frozen=True)
class LinearProbe:
    """One matrix from standardised features to classes. weights: (F + 1, classes), the last row the offset."""

    weights: Tensor
    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(
        cls, features: Float[Tensor, "n f"], labels: Int[Tensor, " n"], *, classes: int, ridge: float = RIDGE
    ) -> "LinearProbe":
        """Least squares onto one-hot labels, every class weighing the same, so that small structures count.

        ridge: weight of the penalty, as a share of the features' variance. Solved exactly, in float64.
        """
        values = features.detach().double()
        mean, scale = values.mean(dim=0), values.std(dim=0, correction=0).clamp_min(1e-8)
        design = _design(values, mean, scale)
        counts = torch.bincount(labels, minlength=classes).clamp_min(1)
        weight = (1.0 / counts[labels].double())[:, None]
        weight = weight / weight.sum()
        target = F.one_hot(labels, classes).double()
        penalty = ridge * torch.eye(design.shape[1], dtype=torch.float64, device=design.device)
        penalty[-1, -1] = 0.0  # the offset is free
        return cls(
            torch.linalg.solve(design.T @ (weight * design) + penalty, design.T @ (weight * target)), mean, scale
        )

    def predict(self, features: Float[Tensor, "n f"]) -> Int[Tensor, " n"]:
        """Class of each feature vector."""
        return (_design(features.detach().double(), self.mean, self.scale) @ self.weights).argmax(dim=1)


def probe_segmentation(
    encoder: Encoder,
    images: Float[Tensor, "n c d h w"],
    labels: Int[Tensor, "n 1 d h w"],
    *,
    classes: int,
    fit_on: int,
    ridge: float = RIDGE,
) -> ProbeScore:
    """Fit a probe on the dense features of the first `fit_on` images and score it on the others.

    Features of all levels, each brought to the image's resolution, stand side by side. Draws no random numbers.
    """
    train = _voxel_features(encoder, images[:fit_on])
    fitted, known = train.flatten(0, 1), labels[:fit_on].flatten()
    chosen = torch.linspace(0, len(known) - 1, min(len(known), MOST_PLACES), device=known.device).round().long()
    probe = LinearProbe.fit(fitted[chosen], known[chosen].long(), classes=classes, ridge=ridge)
    return score_labels(
        probe.predict(_voxel_features(encoder, images[fit_on:]).flatten(0, 1)), labels[fit_on:].flatten(), classes
    )


def score_labels(guess: Int[Tensor, " n"], truth: Int[Tensor, " n"], classes: int) -> ProbeScore:
    """Dice per foreground class over all voxels together, and the share of right ones."""
    dice = {}
    for label in range(1, classes):
        ours, theirs = guess == label, truth == label
        if theirs.any():
            dice[label] = float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
    return ProbeScore(dice, float((guess == truth).double().mean()))


def _voxel_features(encoder: Encoder, images: Tensor) -> Tensor:
    """(N, voxels, F) features of every voxel, all levels side by side."""
    rows = []
    with torch.no_grad(), evaluating(encoder):
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            levels = [F.interpolate(level.float(), chunk.shape[2:], mode="trilinear") for level in encoder(chunk)]
            rows.append(torch.cat(levels, dim=1).flatten(2).transpose(1, 2))  # (n, voxels, F)
    return torch.cat(rows)


def _design(values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    standard = (values - mean) / scale
    return torch.cat([standard, standard.new_ones(len(standard), 1)], dim=1)
