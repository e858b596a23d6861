"""Jigsaw: predict how the parts of a cube were permuted.

After Noroozi & Favaro 2016 (arXiv 1603.09246) and, in 3D, Zhuang et al. 2019 (Rubik's cube) and Taleb et al. 2020
(arXiv 2006.03829). Each part is encoded alone. Random gaps separate the parts, and each is normalised: otherwise
continuing edges and intensity drift would solve the puzzle without anatomy.
"""

from collections.abc import Iterable, Mapping
from itertools import permutations
from math import factorial, log
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from medssl.encoders.encoder import Encoder
from medssl.errors import ConfigError
from medssl.hookspecs import hookimpl
from medssl.loading.crops import Crop
from medssl.pretext.heads import VectorHead, class_energies, pooled
from medssl.pretext.patches import PatchConfig
from medssl.pretext.task import PretextTask, Step
from medssl.pretext.tiles import cut_tiles, join_tiles, normalised_tiles, tile_edges
from medssl.shapes import Shape3D
from medssl.views.region import Region

Parts = Annotated[int, Field(ge=1, le=3)]
MAX_ENUMERATED = 8  # parts of which all orders are candidates: 8! = 40320
CANDIDATES = 20000  # random orders for more parts


class Jigsaw(PretextTask):
    """Cut a patch into parts with gaps between, permute them, and predict which of a fixed set of orders it was."""

    name = "jigsaw"
    family = "predictive"

    class Config(PatchConfig):
        """Settings of jigsaw."""

        grid: tuple[Parts, Parts, Parts] = Field(default=(2, 2, 2), description="Parts along D, H, W.")
        permutations: int = Field(
            default=100,
            ge=2,
            le=2000,
            description="Orders to distinguish, chosen to differ from each other as much as possible.",
        )
        permutations_per_patch: int = Field(
            default=8,
            ge=1,
            le=256,
            description="Orders per patch and step. Its parts are encoded once, so more orders cost nothing.",
        )
        gap: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
            default="auto",
            description="Room for each part beyond its edge, in voxels. auto: a quarter of the part, at least 2; the "
            "paper takes a third, but small scans have less room.",
        )
        seed: int = Field(default=0, ge=0, description="Seed of the set of orders, which the checkpoint holds too.")

    orders: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        parts = config.grid[0] * config.grid[1] * config.grid[2]
        if parts < 2 or config.permutations > factorial(parts):
            raise ConfigError(
                f"task.permutations is {config.permutations}, but {parts} parts (task.grid={list(config.grid)}) have "
                f"{factorial(parts)} orders. "
                "Lower task.permutations, or cut into more parts."
            )
        self.register_buffer("orders", torch.from_numpy(unlike_orders(parts, config.permutations, seed=config.seed)))
        self.head = VectorHead(encoder, config.permutations, images=parts)

    def crops(self, patch: Shape3D) -> Mapping[str, Crop]:
        """One crop `cube` of all parts with their room."""
        tile = tile_edges(patch, self.encoder.divisor, parts=self.config.grid)
        d, h, w = ((edge + self._gap(edge)) * parts for edge, parts in zip(tile, self.config.grid, strict=True))
        return {"cube": self.config.geometry.crop((d, h, w))}

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, list[int]]:
        """Room of a part along D, H, W, in voxels."""
        tile = tile_edges(patch, self.encoder.divisor, parts=self.config.grid)
        return {"gap": [self._gap(edge) for edge in tile]}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`tiles` (B, n, C, d, h, w) in order, normalised one by one; `order` (B, permutations_per_patch), the index of
        each order to predict.
        """
        cube, grid = region.crop("cube"), self.config.grid
        cell = [edge // parts for edge, parts in zip(cube.shape[2:], grid, strict=True)]
        tile = self._tile(cell)
        room = np.array([c - t for c, t in zip(cell, tile, strict=True)])
        # a quarter of the room stays free at both ends, so that parts never touch (if there is any room)
        margin = (room + 2) // 4
        free = room - 2 * margin + 1
        jitter = region.random.random("jitter", (len(self.orders[0]), 3))
        offsets = margin + np.floor(jitter * free).astype(np.int64)
        tiles = cut_tiles(cube, grid=grid, tile=tile, offsets=offsets)
        drawn = region.random.uniform("order", 0.0, 1.0, (self.config.permutations_per_patch,))
        order = (drawn * len(self.orders)).long().clamp_max(len(self.orders) - 1)
        return {"tiles": normalised_tiles(tiles), "order": order}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Cross-entropy of the order, averaged over the orders of a patch."""
        tiles, order = views["tiles"], views["order"]
        count, copies = tiles.shape[1], order.shape[1]
        pyramid = self.encoder(tiles.flatten(0, 1))
        # Each part is encoded alone, so permuting the parts' vectors equals permuting the parts.
        parts = self.head.pool(pyramid).view(len(tiles), count, -1).repeat_interleave(copies, dim=0)
        logits = self.head.predict(shuffle(parts, self.orders[order.flatten()]).flatten(0, 1)).to(tiles.dtype)
        right, wrong = class_energies(logits, order.flatten())
        energy, negative = right.view_as(order).mean(dim=1), wrong.view_as(order).mean(dim=1)
        shuffled = shuffle(tiles, self.orders[order[:, 0]])
        solved = unshuffle(shuffled, self.orders[logits.argmax(dim=1).view_as(order)[:, 0]])
        scan, prediction = join_tiles(tiles, grid=self.config.grid), join_tiles(solved, grid=self.config.grid)
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=negative,
            trivial_loss=log(len(self.orders)),
            terms={"accuracy": (logits.argmax(dim=1) == order.flatten()).to(tiles.dtype).mean()},
            pictures={
                "scan": scan,
                "shuffled": join_tiles(shuffled, grid=self.config.grid),
                "prediction": prediction,
                "error": (prediction - scan).abs(),
            },
            embeddings=pooled(pyramid).detach(),
        )

    def _gap(self, edge: int) -> int:
        return max(2, edge // 4) if self.config.gap == "auto" else int(self.config.gap)

    def _tile(self, cell: list[int]) -> Shape3D:
        """Edges of the parts from those of the cells that `crops` asked for."""
        edges = [next(edge for edge in range(size, 0, -1) if edge + self._gap(edge) <= size) for size in cell]
        d, h, w = (edge // step * step for edge, step in zip(edges, self.encoder.divisor, strict=True))
        return d, h, w


def shuffle(tiles: Tensor, orders: Tensor) -> Tensor:
    """(B, n, ...): position i holds the part that belongs to position orders[b, i]."""
    rows = torch.arange(len(tiles), device=tiles.device).unsqueeze(1)
    return tiles[rows, orders]


def unshuffle(tiles: Tensor, orders: Tensor) -> Tensor:
    """(B, n, ...) back in place; the inverse of `shuffle` with the same orders."""
    return shuffle(tiles, orders.argsort(dim=1))


def unlike_orders(parts: int, count: int, *, seed: int) -> npt.NDArray[np.int64]:
    """(count, parts) distinct orders: the identity, then each with the largest Hamming distance to all before it.

    Greedy, as in Noroozi & Favaro 2016, algorithm 1. Candidates are all orders of up to 8 parts, and random ones of
    more parts.

    Args:
        parts: number of parts.
        count: number of orders.
        seed: of ties and random candidates.
    """
    random = np.random.default_rng(seed)
    if parts <= MAX_ENUMERATED:
        candidates = np.array(list(permutations(range(parts))), np.int64)
    else:
        drawn = [random.permutation(parts) for _ in range(max(CANDIDATES, 2 * count))]
        candidates = np.unique(np.array([np.arange(parts), *drawn], np.int64), axis=0)
    chosen = [0]  # candidates are sorted: the first is the identity
    distance = np.full(len(candidates), parts + 1)
    for _ in range(count - 1):
        distance = np.minimum(distance, (candidates != candidates[chosen[-1]]).sum(axis=1))
        farthest = np.flatnonzero(distance == distance.max())
        chosen.append(int(random.choice(farthest)))
    return candidates[chosen]


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [Jigsaw]
