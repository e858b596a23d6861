"""Two overlapping crops of one region, each with its own geometry and intensities, for tasks that compare them."""

from dataclasses import replace

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from medssl.pretext.patches import PatchGeometry
from medssl.pretext.task import TaskConfig
from medssl.store.crops import Crop
from medssl.views.intensity import IntensityChain
from medssl.views.region import Region

Edges = tuple[int, int, int]
PAIR = ("a", "b")


class PairConfig(TaskConfig):
    """How two crops of a pair differ."""

    geometry: PatchGeometry = Field(
        default=PatchGeometry(rotation_deg=20.0, zoom=(0.8, 1.25), probability=0.8),
        description="Random rotation, magnification and mirroring, drawn for each crop on its own.",
    )
    reach: float = Field(
        default=0.3,
        ge=0.0,
        le=0.9,
        description="Largest distance between the centres of the two crops along each axis, as a share of the patch."
        " At 0.3 two crops share 60 % of their volume on average; towards 0.9 the pair may have nothing "
        "in common to be recognised by.",
    )
    intensity: float = Field(
        default=1.0,
        ge=0.0,
        le=2.0,
        description="Strength of brightness, contrast, gamma, noise and blur, drawn for each crop on its own; 0 "
        "switches them off. Without them the histogram alone tells which crops belong together.",
    )

    def crops(self, patch: Edges) -> dict[str, Crop]:
        """Crop `a` anywhere in the scan and crop `b` near it, both of `patch` (D, H, W) voxels."""
        crop = self.geometry.crop(patch)
        return {"a": crop, "b": replace(crop, anchor="a", reach=self.reach)}

    def images(self, region: Region, names: tuple[str, ...] = PAIR) -> dict[str, Tensor]:
        """(B, 1, D, H, W) of each named crop, with its own intensities."""
        change = IntensityChain(self.intensity)
        return {name: change(region.crop(name), region.draws, name) for name in names}


def matching_points(region: Region, size: Edges, count: int) -> dict[str, Tensor]:
    """Points that lie in both crops of a pair, as `points_a`, `points_b` (B, N, 3) in voxels (d, h, w) of each crop.

    `points_scan` are the same in voxels of the scan, and `points_valid` (B, N) is False where a pair's overlap was too
    small to find `count` points in 8 times as many tries; those are the last ones of a sample.
    """
    high = torch.tensor(size, device=region.draws.device) - 1.0
    in_a = region.draws.uniform("matching points", 0.0, 1.0, (8 * count, 3)) * high
    to_a, to_b = region.matrix("a").to(in_a), region.matrix("b").to(in_a)
    in_scan = _apply(to_a, in_a)
    in_b = torch.linalg.solve(to_b[:, :, :3], (in_scan - to_b[:, None, :, 3]).mT).mT
    valid = ((in_b >= 0) & (in_b <= high)).all(dim=2)
    chosen = torch.sort(~valid, dim=1, stable=True).indices[:, :count]
    picked = {"points_a": in_a, "points_b": in_b, "points_scan": in_scan}
    return {name: points.gather(1, chosen[..., None].expand(-1, -1, 3)) for name, points in picked.items()} | {
        "points_valid": valid.gather(1, chosen)
    }


def _apply(matrix: Float[Tensor, "b 3 4"], points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    """Points (d, h, w) taken through an affine."""
    return points @ matrix[:, :, :3].mT + matrix[:, None, :, 3]
