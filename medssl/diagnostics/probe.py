"""How much of a segmentation can be read off frozen features with one matrix: ridge regression in closed form.

The probe sees detached features only, so it never touches the encoder's gradients.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from medssl.diagnostics.features import CHUNK, evaluating
from medssl.encoders.encoder import Encoder
from medssl.pretext.projection import features_at

RIDGE = 1e-3
PLACES = 4096  # voxels of an image that are looked at
GOLDEN = (5**0.5 - 1) / 2


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

    Features of all levels, each brought to the image's resolution, stand side by side, at up to `PLACES` voxels of an
    image. Draws no random numbers.
    """
    features, truth = place_features(encoder, images), place_labels(labels)
    probe = LinearProbe.fit(features[:fit_on].flatten(0, 1), truth[:fit_on].flatten(), classes=classes, ridge=ridge)
    return score_labels(probe.predict(features[fit_on:].flatten(0, 1)), truth[fit_on:].flatten(), classes)


def probe_both_halves(
    encoder: Encoder,
    images: Float[Tensor, "n c d h w"],
    labels: Int[Tensor, "n 1 d h w"],
    *,
    classes: int,
    second: Bool[Tensor, " n"],
) -> ProbeScore:
    """As `probe_segmentation`, fitted on each half of the images and scored on the other: every image counts once.

    second: which images are of the second half. Images of one patient belong together.
    """
    features, truth = place_features(encoder, images), place_labels(labels)
    guess = torch.empty_like(truth)
    for half in (second, ~second):
        probe = LinearProbe.fit(features[~half].flatten(0, 1), truth[~half].flatten(), classes=classes)
        guess[half] = probe.predict(features[half].flatten(0, 1)).view(-1, truth.shape[1])
    return score_labels(guess.flatten(), truth.flatten(), classes)


def score_labels(guess: Int[Tensor, " n"], truth: Int[Tensor, " n"], classes: int) -> ProbeScore:
    """Dice per foreground class over all voxels together, and the share of right ones."""
    dice = {}
    for label in range(1, classes):
        ours, theirs = guess == label, truth == label
        if theirs.any():
            dice[label] = float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
    return ProbeScore(dice, float((guess == truth).double().mean()))


def place_features(encoder: Encoder, images: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n p f"]:
    """Features of the same voxels of every image, all levels side by side, without gradient."""
    depth, height, width = images.shape[2:]
    axes = torch.meshgrid(*(torch.arange(edge) for edge in (depth, height, width)), indexing="ij")
    grid = torch.stack([axis.flatten() for axis in axes], dim=1)  # (voxels, 3)
    points = grid[_places(len(grid))].to(images.device, torch.float32)
    rows = []
    with torch.no_grad(), evaluating(encoder):
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            here = points.expand(len(chunk), -1, -1)
            rows.append(features_at(encoder(chunk), here, (depth, height, width)).float())
    return torch.cat(rows)


def place_labels(labels: Int[Tensor, "n 1 d h w"]) -> Int[Tensor, "n p"]:
    """Classes of the voxels that `place_features` describes."""
    return labels.flatten(1)[:, _places(labels[0].numel()).to(labels.device)].long()


def _places(voxels: int) -> Tensor:
    """Up to `PLACES` voxels spread evenly, no random numbers: steps of the golden section, which meet no row's
    length.
    """
    if voxels <= PLACES:
        return torch.arange(voxels)
    return (torch.arange(PLACES, dtype=torch.float64) * GOLDEN % 1 * voxels).long()


def _design(values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    standard = (values - mean) / scale
    return torch.cat([standard, standard.new_ones(len(standard), 1)], dim=1)
