"""Scan, position and geometry of each sample: a pure function of (seed, step)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from medssl.errors import ConfigError, DataError
from medssl.loading.crops import Crop, Sample
from medssl.loading.placement import anchored_order, corners, draw_crops
from medssl.randomness import generator
from medssl.shapes import Index3D
from medssl.store.volumes import StoredVolume


class BatchPlan:
    """The endless stream of samples. Sample number n is the n-th of the stream, whichever worker or rank reads it.

    Rotation is in millimetres: on an anisotropic scan a tilted patch spans many thin voxels, as it does in the patient.

    Args:
        scans: to read from.
        crops: of a sample, by name.
        batch_size: samples of the global batch, over all ranks.
        seed: of everything that is drawn.
        weights: relative frequency of each scan, drawn anew for every sample (`scan_weights.py` makes them); None
            visits every scan once per epoch in a seeded order.
        regions_per_scan: number of consecutive samples from one scan. More of them mean fewer files to open and a
            better use of the disk cache, but fewer patients in a batch, and false negatives in a contrastive task.
        foreground: probability that a crop without anchor is centred on a labelled voxel, of a class drawn uniformly
            among those present.
        in_body: probability that any other crop without anchor is centred in the body mask; otherwise it lies in the
            body's box.
    """

    def __init__(
        self,
        scans: Sequence[StoredVolume],
        crops: Mapping[str, Crop],
        *,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
        regions_per_scan: int = 1,
        foreground: float = 0.0,
        in_body: float = 0.0,
    ) -> None:
        if not scans:
            raise DataError(
                "no scan matches. Check the manifest for accepted scans of the requested split and modality."
            )
        if batch_size < 1 or regions_per_scan < 1:
            raise ConfigError(
                f"batch_size is {batch_size} and regions_per_scan {regions_per_scan}; both must be at least 1."
            )
        anchored_order(crops)
        self.scans, self.crops = tuple(scans), dict(crops)
        self.batch_size, self.seed = batch_size, seed
        self.regions_per_scan, self.foreground, self.in_body = regions_per_scan, foreground, in_body
        self._cumulative = None if weights is None else _cumulative(weights, len(self.scans))
        self._order = lru_cache(maxsize=2)(self._order_of)

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> tuple[Sample, ...]:
        """The rank's part of the global batch at `step`. Raises ConfigError if the batch cannot be split evenly."""
        if self.batch_size % world_size:
            raise ConfigError(
                f"a batch of {self.batch_size} cannot be split over {world_size} ranks. "
                f"Make it a multiple of {world_size}."
            )
        per_rank = self.batch_size // world_size
        first = step * self.batch_size + rank * per_rank
        return tuple(self.sample(number) for number in range(first, first + per_rank))

    def sample(self, number: int) -> Sample:
        """Sample `number` of the stream."""
        scan = self.scan_of(number)
        crops = draw_crops(
            scan, self.crops, seed=self.seed, number=number, foreground=self.foreground, in_body=self.in_body
        )
        start, stop = self._box(scan, crops)
        return Sample(number, scan.scan_id, start, stop, crops)

    def scan_of(self, number: int) -> StoredVolume:
        """The scan that sample `number` is cut from."""
        visit = number // self.regions_per_scan
        if self._cumulative is not None:
            u = generator(self.seed, visit, "scan").random()
            return self.scans[int(np.searchsorted(self._cumulative, u, side="right"))]
        epoch, position = divmod(visit, len(self.scans))
        return self.scans[int(self._order(epoch)[position])]

    def _order_of(self, epoch: int) -> npt.NDArray[np.int64]:
        return generator(self.seed, epoch, "order").permutation(len(self.scans))

    def _box(self, scan: StoredVolume, crops: Mapping[str, npt.NDArray[np.float64]]) -> tuple[Index3D, Index3D]:
        """Tight box around all crops with the neighbours that interpolation reads, clipped to the scan; never empty."""
        points = np.concatenate([corners(matrix, self.crops[name].size) for name, matrix in crops.items()])
        shape = np.array(scan.shape)
        # Matrices with a rotation carry rounding errors of 1e-12 voxels: not a reason to read one more plane.
        start = np.clip(np.floor(points.min(axis=0) + 1e-6).astype(int), 0, shape - 1)
        stop = np.clip(np.ceil(points.max(axis=0) - 1e-6).astype(int) + 1, start + 1, shape)
        return (int(start[0]), int(start[1]), int(start[2])), (int(stop[0]), int(stop[1]), int(stop[2]))


def _cumulative(weights: Sequence[float], scans: int) -> npt.NDArray[np.float64]:
    w = np.asarray(weights, np.float64)
    if w.shape != (scans,) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise ConfigError(f"{len(w)} weights for {scans} scans: give one per scan, none negative, and not all zero.")
    total = np.cumsum(w) / w.sum()
    total[-1] = 1.0
    return np.asarray(total)
