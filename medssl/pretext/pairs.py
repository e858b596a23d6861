"""Overlapping crops of one region with independent geometry and intensities, for tasks that compare them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from medssl.loading.crops import Crop
from medssl.pretext.patches import Angle, PatchGeometry, Probability, Zoom
from medssl.pretext.projection import Norm, pooled_levels
from medssl.pretext.task import Step, Views, ViewsConfig
from medssl.shapes import Shape3D
from medssl.views.intensity import IntensityChain
from medssl.views.on_device import on_device
from medssl.views.region import Region

PAIR = ("a", "b")
# For tasks that have negatives or another term against collapse, and so do not need the batch norm of `PairConfig`.
NormOfHeads = Annotated[
    Norm,
    Field(
        description="Norm in the heads. layer normalises each vector alone, and the gradient cache needs it; batch "
        "normalises over the vectors of all devices, as in the paper, for global batches of 16 or more."
    ),
]


class PairGeometry(PatchGeometry):
    """Stronger geometry than for a single patch: the vectors of a pair should not depend on it."""

    rotation_deg: Angle = 20.0
    zoom: Zoom = (0.8, 1.25)
    probability: Probability = Field(
        default=0.8, description="Fraction of crops that are rotated and zoomed; the others are read voxel for voxel."
    )


class PairConfig(ViewsConfig):
    """How the two crops of a pair differ, and how a crop becomes a vector."""

    geometry: PairGeometry = Field(
        default=PairGeometry(), description="Random rotation, magnification and mirroring, independent for each crop."
    )
    max_offset: float = Field(
        default=0.3,
        ge=0.0,
        le=0.9,
        description="Largest distance between the centres of the two crops along each axis, as a fraction of the "
        "patch. At 0.3 two crops have 60 % of their volume in common on average; towards 0.9 there is little left to "
        "recognise them by.",
    )
    intensity: float = Field(
        default=1.0,
        ge=0.0,
        le=2.0,
        description="Strength of noise, blur, brightness, contrast, low resolution and gamma, independent for each "
        "crop; 0 switches them off. Without them the histogram alone identifies the pair.",
    )
    pooled_levels: int = Field(
        default=2,
        ge=1,
        le=8,
        description="Coarsest levels of the encoder whose mean and maximum over space describe a crop.",
    )
    features: int = Field(default=128, ge=8, le=8192, description="Length of the compared vectors.")
    hidden: int = Field(default=1024, ge=8, le=16384, description="Width of the hidden layers of the heads.")
    norm: Norm = Field(
        default="batch",
        description="Norm in the heads. batch normalises over the vectors of all devices, which removes what all crops "
        "have in common, most of a fresh encoder's features: without it, tasks without negatives collapse at once. "
        "layer normalises each vector alone, and is what the gradient cache needs.",
    )

    def crops(self, patch: Shape3D, *, divisor: Shape3D) -> dict[str, Crop]:
        """Crop `a` anywhere in the scan and crop `b` near it, both of `patch` (D, H, W) voxels."""
        crop = self.geometry.crop(patch)
        return {"a": crop, "b": replace(crop, anchor="a", max_offset=self.max_offset)}

    def views(self, region: Region) -> Views:
        """(B, C, D, H, W) of each crop, with intensities changed independently of the other crops."""
        change = IntensityChain(self.intensity)
        return {name: change(region.crop(name), region.random, name) for name in self.crop_names}

    def pictures(self, views: Views) -> dict[str, Tensor]:
        """The two crops of the pair as the encoder sees them."""
        return {f"crop {name}": views[name] for name in PAIR}

    @property
    def crop_names(self) -> tuple[str, ...]:
        """Names of all crops, those of the pair first."""
        return PAIR


class MultiCropConfig(PairConfig):
    """A pair, and small crops near it (multi-crop, Caron et al. 2020, SwAV)."""

    small_crops: int = Field(
        default=4, ge=0, le=16, description="Small crops per pair. Four of half the edge cost a quarter of the pair."
    )
    small_edge: float = Field(
        default=0.5,
        ge=0.2,
        le=1.0,
        description="Edge of a small crop as a fraction of the patch, rounded to what the encoder takes.",
    )

    def crops(self, patch: Shape3D, *, divisor: Shape3D) -> dict[str, Crop]:
        """The pair, and small crops near crop `a`, whose edges are multiples of `divisor`."""
        d, h, w = (
            min(edge, max(2 * step, round(edge * self.small_edge / step) * step))
            for edge, step in zip(patch, divisor, strict=True)
        )
        small = replace(self.geometry.crop((d, h, w)), anchor="a", max_offset=self.max_offset)
        return super().crops(patch, divisor=divisor) | dict.fromkeys(self.small_names, small)

    @property
    def crop_names(self) -> tuple[str, ...]:
        """Names of all crops: the pair, then the small ones."""
        return PAIR + self.small_names

    @property
    def small_names(self) -> tuple[str, ...]:
        """Names of the small crops."""
        return tuple(f"small {number}" for number in range(self.small_crops))


def encode(
    encoder: Callable[[Tensor], list[Tensor]], views: Mapping[str, Tensor], names: tuple[str, ...], *, levels: int
) -> Tensor:
    """(len(names) * B, F) pooled features of crops of one size, one crop after the other."""
    return pooled_levels(encoder(torch.cat([views[name] for name in names])), levels)


def named_chunks(vectors: Tensor, names: tuple[str, ...], prefix: str = "") -> dict[str, Tensor]:
    """Vectors of several crops, by the name of the crop."""
    return {prefix + name: part for name, part in zip(names, vectors.chunk(len(names)), strict=True)}


def pair_step(loss: Tensor, a: Tensor, b: Tensor, *, trivial_loss: float | None, terms: Mapping[str, Tensor]) -> Step:
    """A step whose energy is 1 - cosine of each pair, and whose negative energy is that of shuffled pairs.

    Args:
        loss: scalar with gradient.
        a: (B, F) unit vectors of the first crops.
        b: (B, F) unit vectors of the second crops.
        trivial_loss: as in `Step`.
        terms: scalars, which are detached here.
    """
    a, b = a.detach(), b.detach()
    return Step(
        loss=loss,
        energy=1 - (a * b).sum(dim=1),
        negative_energy=1 - (a * b.roll(1, dims=0)).sum(dim=1) if len(a) > 1 else None,
        trivial_loss=trivial_loss,
        terms={name: term.detach() for name, term in terms.items()},
        embeddings=torch.cat([a, b]),
    )


def matching_points(region: Region, size: Shape3D, count: int) -> dict[str, Tensor]:
    """Points that lie in both crops of a pair.

    Args:
        region: with crops `a` and `b`.
        size: of both crops (D, H, W) in voxels.
        count: N, the number of points per pair.

    Returns:
        `points_a` and `points_b`, (B, N, 3) in voxels (d, h, w) of each crop; `points_scan`, the same points in voxels
        of the scan; and `points_valid`, (B,) False for a pair whose crops do not overlap. A pair with fewer than N
        points in its overlap has some of them twice.
    """
    # Rejection sampling with a fixed number of tries, 8 per point, so that shapes are known without the device.
    high = on_device(size, region.random.device) - 1.0
    in_a = region.random.uniform("matching points", 0.0, 1.0, (8 * count, 3)) * high
    to_a, to_b = region.matrix("a").to(in_a), region.matrix("b").to(in_a)
    in_scan = _apply(to_a, in_a)
    beyond = in_scan - to_b[:, None, :, 3]
    in_b = torch.linalg.solve_ex(to_b[:, :, :3], beyond.mT).result.mT  # solve_ex does not wait for the device
    inside = ((in_b >= 0) & (in_b <= high)).all(dim=2)
    accepted = inside.sum(dim=1, keepdim=True)
    inside_first = torch.sort(~inside, dim=1, stable=True).indices
    chosen = inside_first.gather(1, torch.arange(count, device=high.device) % accepted.clamp(min=1))
    points = {"points_a": in_a, "points_b": in_b, "points_scan": in_scan}
    picked = {name: tries.gather(1, chosen[..., None].expand(-1, -1, 3)) for name, tries in points.items()}
    return picked | {"points_valid": accepted[:, 0] > 0}


def _apply(matrix: Float[Tensor, "b 3 4"], points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    """Points (d, h, w) taken through an affine."""
    return points @ matrix[:, :, :3].mT + matrix[:, None, :, 3]
