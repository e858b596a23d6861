"""What all files of a store share, however their voxels are packed: metadata and small arrays beside one 3D array, a
checksum over all of it, and errors that name the scan.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from medssl.errors import DataError
from medssl.shapes import Index3D, Shape3D

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds beside its (D, H, W) voxels. metadata: JSON values. arrays: small ones, by name."""

    metadata: Mapping[str, Any]
    arrays: Arrays = field(default_factory=dict)


class Container(Protocol):
    """One way of packing an array into a file. Reading raises DataError that names the scan."""

    SUFFIX: str

    def write(self, path: Path, voxels: npt.NDArray[Any], contents: Contents) -> None:
        """Write voxels, contents and a checksum. Raises DataError if the write fails."""

    def read_contents(self, path: Path, scan_id: str) -> Contents:
        """The contents, without reading any voxels."""

    def read_box(
        self, path: Path, scan_id: str, start: Index3D, stop: Index3D, *, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """The voxels in [start, stop), contiguous. out: array to fill and return, if its shape and type fit."""

    def fetch(self, path: Path, scan_id: str, start: Index3D, stop: Index3D) -> None:
        """Read what `read_box` needs from the disk, without unpacking: for timing."""

    def verify(self, path: Path, scan_id: str) -> None:
        """Read everything. Raises DataError if the checksum differs."""


def array_to_fill(out: npt.NDArray[Any] | None, shape: Shape3D, dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
    """`out` if it can be filled directly, otherwise a new array."""
    fits = out is not None and (out.shape, out.dtype) == (shape, dtype) and out.flags.c_contiguous
    return out if out is not None and fits else np.empty(shape, dtype)


def box_shape(path: Path, scan_id: str, start: Index3D, stop: Index3D, shape: tuple[int, ...]) -> Shape3D:
    """Shape of a box. Raises DataError if a file of this shape does not contain it."""
    if len(shape) != 3 or not all(0 <= a < b <= n for a, b, n in zip(start, stop, shape, strict=True)):
        raise damaged(scan_id, path, f"it has {shape} voxels, which do not hold the box {start} to {stop}")
    return stop[0] - start[0], stop[1] - start[1], stop[2] - start[2]


def checksum(voxels: npt.NDArray[Any], metadata: str, arrays: Arrays) -> str:
    """Digest of metadata, small arrays and voxels together."""
    digest = blake2b(metadata.encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    digest.update(np.ascontiguousarray(voxels).data)
    return digest.hexdigest()


def missing(scan_id: str, path: Path) -> DataError:
    """The error for a missing file."""
    return DataError(
        f"scan {scan_id} is not in the store ({path.name} is missing). Run the ingest of this cohort again; it adds "
        "what is missing."
    )


def damaged(scan_id: str, path: Path, why: object) -> DataError:
    """The error for a file that cannot be read."""
    return DataError(
        f"scan {scan_id} is damaged in the store ({path.name}: {why}). Delete that file and run the ingest of this "
        "cohort again."
    )
