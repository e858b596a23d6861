"""What every file of a store has in common, however its voxels are packed: it appears whole or not at all, carries a
checksum, and is named with its scan when it cannot be read.
"""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A draft to write to, which gets its name when it is complete and on the disk. Raises DataError that says how much
    space there is: libraries do not say why a write failed.
    """
    # Two writers of one scan, be they on two machines, are kept apart; the last to finish wins with a whole file.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield draft
        with draft.open("rb") as file:  # a power cut leaves no half file under the name
            os.fsync(file.fileno())
        os.replace(draft, path)
    except (OSError, RuntimeError, ValueError) as error:
        free_mb = shutil.disk_usage(path.parent).free // 2**20
        raise DataError(
            f"{path.name} cannot be written to the store: {str(error) or type(error).__name__} ({free_mb} MB are free "
            "there). Check space and rights of the folder."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove what writers that were killed have left in a store; nobody else may be writing to it."""
    for draft in folder.glob(".*.tmp"):
        draft.unlink(missing_ok=True)


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
