"""Patch context: predict a patch from the patches around it.

The encoder sees each surrounding patch alone, so that the prediction rests on its features and not on continuing edges.
After the context encoders of Pathak et al. 2016 (arXiv 1604.07379) and the context prediction of Doersch et al. 2015
(arXiv 1505.05192).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.loading.crops import Crop
from medssl.pretext.heads import pooled
from medssl.pretext.patches import PatchConfig
from medssl.pretext.reconstruction import mismatched_error, scored_mean, valid_fraction, voxel_error
from medssl.pretext.task import PretextTask, Step
from medssl.pretext.tiles import cut_tiles, join_tiles, tile_edges
from medssl.shapes import Shape3D
from medssl.views.region import Region

GRID = (3, 3, 3)
CENTRE = 13
MAX_DETAIL = 4


class PatchContext(PretextTask):
    """Encode the patches around a patch one by one, and predict the middle patch from their features."""

    name = "patch-context"
    family = "predictive"

    class Config(PatchConfig):
        """Settings of patch-context."""

        neighbours: Literal[6, 18, 26] = Field(
            default=6,
            description="Number of visible patches: those at a face (6), at an edge too (18), or at a corner too (26).",
        )
        width: int = Field(default=128, ge=8, le=2048, description="Features inside the predictor.")

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.positions = neighbour_positions(config.neighbours)
        stride = encoder.strides[-1]
        self.detail = (_detail(stride[0]), _detail(stride[1]), _detail(stride[2]))
        features, width = encoder.channels[-1], config.width
        self.unseen = nn.Parameter(torch.zeros(features))
        layers: list[nn.Module] = []
        for inputs in (features, width, width):
            layers += [nn.Conv3d(inputs, width, 3, padding=1), nn.GELU()]
        last = nn.Conv3d(width, encoder.description.in_channels * math.prod(self.detail), 1)
        self.predictor = nn.Sequential(*layers, last)

    def crops(self, patch: Shape3D) -> Mapping[str, Crop]:
        """Three tiles along each axis, a tile being half the patch."""
        d, h, w = tile_edges(patch, self.encoder.divisor)
        return {"surroundings": self.config.geometry.crop((3 * d, 3 * h, 3 * w))}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`scan`, 3 x 3 x 3 tiles; `around` (B, n, C, d, h, w), the visible tiles; `middle`, the tile to predict;
        `scored`, its voxels inside the scan.
        """
        scan = region.crop("surroundings")
        tile = _third(scan)
        valid = cut_tiles(region.valid("surroundings"), grid=GRID, tile=tile)[:, CENTRE]
        tiles = cut_tiles(scan, grid=GRID, tile=tile)
        return {"scan": scan, "around": tiles[:, list(self.positions)], "middle": tiles[:, CENTRE], "scored": valid}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Squared error of the middle tile, at the resolution of the predictor."""
        around, middle = views["around"], views["middle"]
        pyramid = self.encoder(around.flatten(0, 1))
        prediction = self._predict(pyramid[-1].unflatten(0, around.shape[:2]))
        window = [edge // small for edge, small in zip(middle.shape[2:], prediction.shape[2:], strict=True)]
        target = F.avg_pool3d(middle, window)
        scored = F.avg_pool3d(views["scored"].to(target.dtype), window)
        energy = scored_mean(voxel_error(prediction, target), scored)
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=mismatched_error(prediction, target, scored),
            terms={"trivial_loss": scored_mean(target.square(), scored).mean()},
            pictures=_pictures(views["scan"], prediction=prediction.detach().to(target.dtype), target=target),
            embeddings=pooled(pyramid).detach(),
            valid_fraction=valid_fraction(scored),
        )

    def _predict(self, features: Tensor) -> Tensor:
        """(B, C, d, h, w) of the middle, in sub-cells, from (B, n, F, cells...) of the tiles around."""
        cells = features.shape[3:]
        blank = self.unseen.to(features.dtype).view(1, -1, 1, 1, 1).expand(len(features), -1, *cells)
        visible = dict(zip(self.positions, features.unbind(1), strict=True))
        layout = join_tiles(torch.stack([visible.get(position, blank) for position in range(27)], dim=1), grid=GRID)
        d, h, w = cells
        out = self.predictor(layout)[:, :, d : 2 * d, h : 2 * h, w : 2 * w]
        p, q, r = self.detail
        prediction: Tensor = rearrange(out, "b (c p q r) d h w -> b c (d p) (h q) (w r)", p=p, q=q, r=r)
        return prediction


def neighbour_positions(neighbours: int) -> tuple[int, ...]:
    """Positions on the 3 x 3 x 3 grid (W fastest) that share a face (6), face or edge (18), or any corner (26)."""
    farthest = {6: 1, 18: 2, 26: 3}[neighbours]
    distance = [abs(d - 1) + abs(h - 1) + abs(w - 1) for d in range(3) for h in range(3) for w in range(3)]
    return tuple(position for position, steps in enumerate(distance) if 0 < steps <= farthest)


def _detail(stride: int) -> int:
    """Sub-cells per deepest cell: the largest divisor of the stride up to 4; deep features hold no finer detail."""
    return max(size for size in range(1, MAX_DETAIL + 1) if stride % size == 0)


def _third(volume: Tensor) -> Shape3D:
    return volume.shape[2] // 3, volume.shape[3] // 3, volume.shape[4] // 3


def _pictures(scan: Tensor, *, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The scan, the scan without its middle, with the prediction in it, and how far that is off."""
    d, h, w = _third(scan)
    middle = (..., slice(d, 2 * d), slice(h, 2 * h), slice(w, 2 * w))
    hidden, guessed, error = scan.clone(), scan.clone(), torch.zeros_like(scan)
    hidden[middle] = scan.amin()
    guessed[middle] = F.interpolate(prediction, size=[d, h, w])
    error[middle] = F.interpolate((prediction - target).abs(), size=[d, h, w])
    return {"scan": scan, "hidden": hidden, "prediction": guessed, "error": error}


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [PatchContext]
