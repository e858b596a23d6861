"""What every file of a store has in common, however its voxels are packed: it appears whole or not at all, carries a
checksum, and is named with its scan when it cannot be read.
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
    """One (D, H, W) array and what lies beside it. facts: for JSON. arrays: small ones, by name."""

    facts: Mapping[str, Any]
    arrays: Arrays = field(default_factory=dict)


class Container(Protocol):
    """One way of packing an array into a file. Reading raises DataError that names the scan."""

    SUFFIX: str

    def write(self, path: Path, voxels: npt.NDArray[Any], contents: Contents) -> None:
        """Write voxels, what lies beside them, and a checksum. Raises DataError when the disk refuses."""

    def read_contents(self, path: Path, scan_id: str) -> Contents:
        """What lies beside the voxels; none of them is read."""

    def read_box(
        self, path: Path, scan_id: str, start: Index3D, stop: Index3D, *, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """The voxels in [start, stop), contiguous. out: array to fill and return, where its shape and type fit."""

    def fetch(self, path: Path, scan_id: str, start: Index3D, stop: Index3D) -> None:
        """Read what `read_box` needs from the disk, and unpack nothing: for timing."""

    def verify(self, path: Path, scan_id: str) -> None:
        """Read everything. Raises DataError where the checksum differs."""


def array_to_fill(out: npt.NDArray[Any] | None, shape: Shape3D, dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
    """`out` where it can be filled in one go, else a new array."""
    fits = out is not None and (out.shape, out.dtype) == (shape, dtype) and out.flags.c_contiguous
    return out if out is not None and fits else np.empty(shape, dtype)


def box_shape(path: Path, scan_id: str, start: Index3D, stop: Index3D, whole: tuple[int, ...]) -> Shape3D:
    """Edges of a box. Raises DataError where a file does not hold it."""
    if len(whole) != 3 or not all(0 <= a < b <= n for a, b, n in zip(start, stop, whole, strict=True)):
        raise damaged(scan_id, path, f"it has {whole} voxels, which do not hold the box {start} to {stop}")
    return stop[0] - start[0], stop[1] - start[1], stop[2] - start[2]


def checksum(voxels: npt.NDArray[Any], facts: str, arrays: Arrays) -> str:
    """Of voxels, facts and small arrays together."""
    digest = blake2b(facts.encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    digest.update(np.ascontiguousarray(voxels).data)
    return digest.hexdigest()


def missing(scan_id: str, path: Path) -> DataError:
    """The error of a file that is not there."""
    return DataError(
        f"scan {scan_id} is not in the store ({path.name} is missing). Run the ingest of this cohort again; it adds "
        "what is missing."
    )


def damaged(scan_id: str, path: Path, why: object) -> DataError:
    """The error of a file that cannot be read."""
    return DataError(
        f"scan {scan_id} is damaged in the store ({path.name}: {why}). Delete that file and run the ingest of this "
        "cohort again."
    )
