"""Heads of joint-embedding tasks: from a feature pyramid to the vectors that are compared."""

from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.pretext.collectives import gather
from medssl.pretext.moments import RunningMoments
from medssl.shapes import Shape3D
from medssl.views.on_device import on_device

Norm = Literal["layer", "batch"]


class Projection(nn.Module):
    """Linear layers with a norm and ReLU between them: the projector, which is discarded after pretraining.

    Args:
        inputs: length of the vectors that come in.
        outputs: length of the vectors that go out.
        hidden: width between the layers.
        layers: number of linear layers.
        norm: "layer" normalises each vector alone; "batch" over the batch of all ranks, as in the papers, which needs a
            batch of 16 or more.
        last_norm: normalise after the last layer too, without scale and shift.
        kinds: number of kinds of batches that a step embeds one after the other, such as large and small crops. A
            batch norm keeps separate running statistics for each.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden: int = 1024,
        layers: int = 2,
        norm: Norm = "layer",
        last_norm: bool = False,
        kinds: int = 1,
    ) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        parts: list[nn.Module] = []
        for position, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
            last = position == layers
            normed = last_norm or not last
            parts.append(nn.Linear(fan_in, fan_out, bias=not (normed and norm == "batch")))
            if normed:
                parts.append(_norm(norm, fan_out, affine=not last, kinds=kinds))
            if not last:
                parts.append(nn.ReLU())
        self.layers = nn.Sequential(*parts)

    def forward(self, vectors: Tensor, kind: int = 0) -> Tensor:
        """(..., inputs) to (..., outputs), of a batch of this kind."""
        for layer in self.layers:
            vectors = layer(vectors, kind) if isinstance(layer, BatchNorm) else layer(vectors)
        return vectors


class BatchNorm(nn.Module):
    """Batch normalisation over the batch of all ranks, on any device (torch's SyncBatchNorm is for CUDA only).

    In evaluation it uses running statistics: the score of a scan must not depend on the scans beside it.

    Args:
        features: number of features.
        affine: whether scale and shift are learned.
        eps: added to the variance.
        kinds: as in `Projection`.
    """

    def __init__(self, features: int, *, affine: bool = True, eps: float = 1e-5, kinds: int = 1) -> None:
        super().__init__()
        self.eps = eps
        self.moments = nn.ModuleList(RunningMoments(features) for _ in range(kinds))
        self.weight = nn.Parameter(torch.ones(features), requires_grad=affine)
        self.bias = nn.Parameter(torch.zeros(features), requires_grad=affine)

    def forward(self, vectors: Float[Tensor, "... f"], kind: int = 0) -> Float[Tensor, "... f"]:
        """Each feature with mean 0 and biased variance 1 over the global batch, then scale and shift."""
        exact, moments = upcast(vectors), cast(RunningMoments, self.moments[kind])
        if not self.training:
            return moments.standardised(exact, eps=self.eps) * self.weight + self.bias
        everyone = gather(exact.flatten(0, -2), across_ranks=True)
        moments.update(everyone)
        mean, variance = everyone.mean(dim=0), everyone.var(dim=0, unbiased=False)
        return (exact - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


def _norm(norm: Norm, features: int, *, affine: bool, kinds: int) -> nn.Module:
    if norm == "batch":
        return BatchNorm(features, affine=affine, kinds=kinds)
    return nn.LayerNorm(features, elementwise_affine=affine)


def pooled_channels(encoder: Encoder, levels: int) -> int:
    """Length of what `pooled_levels` returns."""
    return 2 * sum(encoder.channels[-levels:])


def pooled_levels(pyramid: list[Tensor], levels: int) -> Tensor:
    """(B, F): mean and maximum over space of the coarsest `levels` of a pyramid, one level after the other.

    The mean alone says little behind an instance norm, which makes it the same for all images.
    """
    coarse = [upcast(level) for level in pyramid[-levels:]]
    return torch.cat([pool(level, (2, 3, 4)) for level in coarse for pool in (torch.mean, torch.amax)], dim=1)


def features_at(pyramid: list[Tensor], points: Float[Tensor, "b n 3"], size: Shape3D) -> Float[Tensor, "b n f"]:
    """Features of all levels at `points`, one level after the other; trilinear between voxels.

    Args:
        pyramid: (B, C, d, h, w) per level.
        points: in voxels (d, h, w) of the image.
        size: edges (D, H, W) of the image in voxels.
    """
    # The centre of voxel d lies at (d + 0.5) / D of the image's edge. In these units it has the same coordinate at
    # every level, whatever the stride; align_corners=False of grid_sample is this convention.
    edges = on_device(size, points.device).to(points.dtype)
    grid = ((2 * points + 1) / edges - 1).flip(-1)[:, :, None, None, :]  # grid_sample wants (x, y, z) = (w, h, d)
    sampled = [
        F.grid_sample(level, grid.to(level.dtype), padding_mode="border", align_corners=False)[..., 0, 0].mT
        for level in map(upcast, pyramid)
    ]
    return torch.cat(sampled, dim=2)


def upcast(values: Tensor) -> Tensor:
    """Values in at least float32: half precision overflows in exponentials and loses small differences."""
    return values if values.dtype == torch.float64 else values.float()


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1 in at least float32; a vector of zeros stays one."""
    return F.normalize(upcast(vectors), dim=-1, eps=1e-8)


def without_autocast(values: Tensor) -> AbstractContextManager[object]:
    """Context in which matrix products keep their inputs' precision: similarities are divided by small temperatures."""
    return torch.autocast(values.device.type, enabled=False)
