"""Slice order: score how far up the body each slab of a scan lies, learned from the order of slabs alone.

Body-part regression (Yan et al. 2018, "Unsupervised body part regression via spatially self-ordering convolutional
neural networks", arXiv 1707.03891) with slabs instead of slices, because the encoder is three-dimensional. Each slab
is encoded, normalised and scored alone, and random gaps separate the slabs, so that nothing continues from one to the
next.
"""

from collections.abc import Iterable, Mapping
from math import log
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.loading.crops import Crop
from medssl.pretext.heads import VectorHead, pooled
from medssl.pretext.patches import PatchConfig, PatchGeometry, without_flips
from medssl.pretext.task import PretextTask, Step
from medssl.pretext.tiles import cut_tiles, join_tiles, normalised_tiles
from medssl.shapes import Shape3D
from medssl.views.region import Region


class SliceOrder(PretextTask):
    """Cut slabs along the body axis, score each, and train the scores to rise from the lowest to the highest slab."""

    name = "slice-order"
    family = "predictive"

    class Config(PatchConfig):
        """Settings of slice-order."""

        slabs: int = Field(default=4, ge=2, le=16, description="Slabs per patch, along the body axis D.")
        gap: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
            default="auto",
            description="Room for each slab beyond its thickness, in voxels. auto: half the slab, at least 2, so that "
            "neighbours do not touch.",
        )
        geometry: PatchGeometry = Field(
            default=PatchGeometry(flip=(0.0, 0.0, 0.5)),
            description="Random rotation, magnification and mirroring. Mirroring D would reverse the order, and "
            "is refused.",
        )

        @field_validator("geometry")
        @classmethod
        def _upright(cls, geometry: PatchGeometry) -> PatchGeometry:
            return without_flips(geometry, axes="D")

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.head = VectorHead(encoder, 1)

    def crops(self, patch: Shape3D) -> Mapping[str, Crop]:
        """One crop `stack` of all slabs with their room; the slabs together are about as deep as the patch."""
        thick = slab_depth(patch, self.encoder.divisor, slabs=self.config.slabs)
        depth = self.config.slabs * (thick + self._gap(thick))
        return {"stack": self.config.geometry.crop((depth, patch[1], patch[2]))}

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, int]:
        """Room of a slab in voxels."""
        return {"gap": self._gap(slab_depth(patch, self.encoder.divisor, slabs=self.config.slabs))}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`slabs` (B, n, C, d, H, W) from the lowest to the highest, normalised one by one; `shuffle` (B, n), an order
        for the pictures.
        """
        stack, count = region.crop("stack"), self.config.slabs
        cell = stack.shape[2] // count
        thick = next(d for d in range(cell, 0, -1) if d % self.encoder.divisor[0] == 0 and d + self._gap(d) <= cell)
        offsets = np.zeros((len(stack), count, 3), np.int64)
        offsets[..., 0] = np.floor(region.random.random("jitter", (count,)) * (cell - thick + 1))
        tile = (thick, stack.shape[3], stack.shape[4])
        slabs = cut_tiles(stack, grid=(count, 1, 1), tile=tile, offsets=offsets)
        return {"slabs": normalised_tiles(slabs), "shuffle": region.random.permutations("shuffle", count)}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Logistic loss of every pair of slabs."""
        slabs = views["slabs"]
        count = slabs.shape[1]
        pyramid = self.encoder(slabs.flatten(0, 1))
        scores = self.head(pyramid).to(slabs.dtype).view(-1, count)
        energy = order_energy(scores)
        rows = torch.arange(len(slabs), device=slabs.device).unsqueeze(1)
        grid = (count, 1, 1)
        scan, prediction = join_tiles(slabs, grid=grid), join_tiles(slabs[rows, scores.argsort(dim=1)], grid=grid)
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=order_energy(scores.detach().flip(1)),
            trivial_loss=log(2.0),
            terms={"pairs_in_order": _in_order(scores)},
            pictures={
                "scan": scan,
                "shuffled": join_tiles(slabs[rows, views["shuffle"]], grid=grid),
                "prediction": prediction,
                "error": (prediction - scan).abs(),
            },
            embeddings=pooled(pyramid).detach(),
        )

    def _gap(self, thick: int) -> int:
        return max(2, thick // 2) if self.config.gap == "auto" else int(self.config.gap)


def order_energy(scores: Tensor) -> Tensor:
    """(B,) mean over all pairs i < j of ln(1 + exp(s_i - s_j)) of scores (B, n); ln 2 if all are equal."""
    lower, upper = _pairs(scores)
    return F.softplus(lower - upper).mean(dim=1)


def slab_depth(patch: Shape3D, divisor: Shape3D, *, slabs: int) -> int:
    """Slices of a slab: the patch's depth over the slabs, rounded to what the encoder can take."""
    return max(1, round(patch[0] / slabs / divisor[0])) * divisor[0]


def _pairs(scores: Tensor) -> tuple[Tensor, Tensor]:
    lower, upper = torch.triu_indices(scores.shape[1], scores.shape[1], offset=1, device=scores.device)
    return scores[:, lower], scores[:, upper]


def _in_order(scores: Tensor) -> Tensor:
    lower, upper = _pairs(scores.detach())
    return (lower < upper).to(scores.dtype).mean()


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [SliceOrder]
