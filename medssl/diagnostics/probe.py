"""A linear probe: how well one matrix segments from frozen features, fitted by ridge regression in closed form.

The probe reads detached features only, so it leaves the encoder's gradients alone.
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
MAX_VOXELS = 4096  # of an image that are used
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class ProbeScore:
    """Scores on images that the probe was not fitted on. dice: per foreground class that some image has."""

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

        ridge: weight of the penalty, as a fraction of the features' variance. Solved exactly, in float64.
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
        weights = torch.linalg.solve(design.T @ (weight * design) + penalty, design.T @ (weight * target))
        return cls(weights, mean, scale)

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

    Features of all levels, each resampled to the image's resolution, are concatenated at up to `MAX_VOXELS` voxels of
    an image. Draws no random numbers.
    """
    features, truth = voxel_features(encoder, images), voxel_labels(labels)
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
    """As `probe_segmentation`, fitted on each half of the images and scored on the other, so every image counts once.

    second: which images are in the second half; all images of a patient must be in one half.
    """
    features, truth = voxel_features(encoder, images), voxel_labels(labels)
    prediction = torch.empty_like(truth)
    for half in (second, ~second):
        probe = LinearProbe.fit(features[~half].flatten(0, 1), truth[~half].flatten(), classes=classes)
        prediction[half] = probe.predict(features[half].flatten(0, 1)).view(-1, truth.shape[1])
    return score_labels(prediction.flatten(), truth.flatten(), classes)


def score_labels(prediction: Int[Tensor, " n"], truth: Int[Tensor, " n"], classes: int) -> ProbeScore:
    """Dice per foreground class over all voxels together, and the fraction of correct voxels."""
    dice = {}
    for label in range(1, classes):
        predicted, reference = prediction == label, truth == label
        if reference.any():
            dice[label] = float(2 * (predicted & reference).sum() / (predicted.sum() + reference.sum()))
    return ProbeScore(dice, float((prediction == truth).double().mean()))


def voxel_features(encoder: Encoder, images: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n p f"]:
    """Features at the same voxels of every image, all levels concatenated, without gradient."""
    depth, height, width = images.shape[2:]
    axes = torch.meshgrid(*(torch.arange(edge) for edge in (depth, height, width)), indexing="ij")
    grid = torch.stack([axis.flatten() for axis in axes], dim=1)  # (voxels, 3)
    points = grid[_voxels(len(grid))].to(images.device, torch.float32)
    rows = []
    with torch.no_grad(), evaluating(encoder):
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            chunk_points = points.expand(len(chunk), -1, -1)
            rows.append(features_at(encoder(chunk), chunk_points, (depth, height, width)).float())
    return torch.cat(rows)


def voxel_labels(labels: Int[Tensor, "n 1 d h w"]) -> Int[Tensor, "n p"]:
    """Classes of the voxels that `voxel_features` describes."""
    return labels.flatten(1)[:, _voxels(labels[0].numel()).to(labels.device)].long()


def _voxels(voxels: int) -> Tensor:
    """Up to `MAX_VOXELS` voxels spread evenly, without random numbers."""
    # Steps of the golden ratio: regular steps could coincide with the length of a row and see one column only.
    if voxels <= MAX_VOXELS:
        return torch.arange(voxels)
    return (torch.arange(MAX_VOXELS, dtype=torch.float64) * GOLDEN % 1 * voxels).long()


def _design(values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    standard = (values - mean) / scale
    return torch.cat([standard, standard.new_ones(len(standard), 1)], dim=1)
