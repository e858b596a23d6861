"""Where the patient is in a scan, so that crops can avoid the air: a bounding box with a resolution of 4 voxels, and a
mask of coarse cells that takes a few hundred bytes per scan.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.shapes import Index3D, Shape3D
from medssl.store.percentiles import dark_and_bright, thinned

# (start, stop)
Box = tuple[Index3D, Index3D]

# Half-way between air (-1000 HU) and soft tissue; lungs lie inside the box of the body anyway.
CT_BODY_HU = -500.0
# Without a physical scale: a tenth of the way from the darkest to the brightest voxels, above the noise of air in MR.
BODY_FRACTION, PERCENTILE_VOXELS = 0.1, 1_000_000
# A coarse cell counts as body from this fraction of body voxels on, so that noisy voxels, couch and coil wires do not.
CELL_VOXELS, CELL_FRACTION = 4, 0.25
# Cells of the mask. They may be coarse, as patches are larger, and small, as a plan holds the masks of all its scans:
# at most so many per axis.
MASK_CELL_VOXELS, MAX_CELLS = 8, 32


@dataclass(frozen=True)
class BodyMask:
    """Which coarse cells of a scan hold body, cavities such as lungs and sinuses included.

    Attributes:
        edges: voxels of a cell along D, H, W; the last cell of an axis may be thinner.
        shape: number of cells along D, H, W.
        packed: one bit per cell, compressed with zlib.
    """

    edges: Shape3D
    shape: Shape3D
    packed: bytes

    @property
    def cells(self) -> npt.NDArray[np.bool_]:
        """(d, h, w) cells, true where there is body."""
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        return np.unpackbits(bits, count=prod(self.shape)).astype(bool).reshape(self.shape)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"edges": self.edges, "shape": self.shape, "bits": base64.b64encode(self.packed).decode()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BodyMask":
        """The inverse of `as_dict`."""
        return cls(_triple(values["edges"]), _triple(values["shape"]), base64.b64decode(values["bits"]))


def find_body(voxels: npt.NDArray[Any], modality: str) -> tuple[Box, BodyMask]:
    """Box and mask of the body in (d, h, w) voxels; the whole scan if no cell holds body."""
    mask = body_mask(voxels, modality)
    d, h, w = (max(MASK_CELL_VOXELS, -(-n // MAX_CELLS)) for n in voxels.shape)
    cells = with_cavities(coarse_mask(mask, (d, h, w)))
    if not cells.any():
        cells[...] = True
    packed = zlib.compress(np.packbits(cells).tobytes(), 9)
    return _box(coarse_mask(mask, (CELL_VOXELS,) * 3), voxels.shape), BodyMask((d, h, w), _triple(cells.shape), packed)


def body_mask(voxels: npt.NDArray[Any], modality: str) -> npt.NDArray[np.bool_]:
    """Voxels of the patient: above -500 HU in CT, above a tenth of the intensity range in all other modalities."""
    if modality == "CT":
        return np.asarray(voxels > CT_BODY_HU)
    dark, bright = dark_and_bright(thinned(voxels, remaining=PERCENTILE_VOXELS))
    # In float64: beside float32 voxels a Python float is rounded to float32, and voxels at the threshold change side.
    return np.asarray(voxels > np.float64(dark + BODY_FRACTION * (bright - dark)))


def _box(cells: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> Box:
    """Smallest box (start, stop) around the coarse cells that hold body; the whole scan if none does."""
    if not cells.any():
        return (0, 0, 0), _triple(shape)
    start, stop = [0, 0, 0], list(shape)
    for axis in range(3):
        filled = np.flatnonzero(cells.any(axis=tuple(a for a in range(3) if a != axis)))
        start[axis] = int(filled[0]) * CELL_VOXELS
        stop[axis] = min(shape[axis], (int(filled[-1]) + 1) * CELL_VOXELS)
    return _triple(start), _triple(stop)


def _triple(values: Sequence[int]) -> Shape3D:
    d, h, w = (int(value) for value in values)
    return d, h, w


def coarse_mask(mask: npt.NDArray[np.bool_], edges: Shape3D) -> npt.NDArray[np.bool_]:
    """The mask on cells of `edges` voxels: true from a quarter of body voxels on. The last cells may be thinner."""
    # Sums along one axis after the other; `reduceat` allows a thinner last cell, and `sizes` counts its voxels.
    counts, sizes = mask.astype(np.float32), np.ones(mask.shape, np.float32)
    for axis, edge in enumerate(edges):
        starts = np.arange(0, mask.shape[axis], edge)
        counts = np.add.reduceat(counts, starts, axis=axis)
        sizes = np.add.reduceat(sizes, starts, axis=axis)
    return np.asarray(counts >= CELL_FRACTION * sizes)


def with_cavities(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The (d, h, w) cells with what they enclose within each axial slice: lungs are dark, and open above and below."""
    # Flood fill of the air from a border of air around each slice: what the flood does not reach is body or enclosed.
    air = np.pad(~cells, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    outside = np.zeros_like(air)
    outside[:, 0, 0] = True
    while True:
        grown = outside.copy()
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown[:, :, 1:] |= outside[:, :, :-1]
        grown[:, :, :-1] |= outside[:, :, 1:]
        grown &= air
        if (grown == outside).all():
            return np.asarray(~outside[:, 1:-1, 1:-1])
        outside = grown
