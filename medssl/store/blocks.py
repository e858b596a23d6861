"""Packed voxels: LZ4 blocks (python-blosc2), of which a read unpacks only those that it touches.

Chunks are 64 cubed; within a chunk, sub-blocks of 16 x 16 x 32 voxels (16 KB, the first-level cache) are unpacked
separately, so a crop unpacks little beyond itself. LZ4HC writes slower than LZ4 and reads a little faster, thanks to
longer matches. On a T1 head, whole 64-cubed blocks of plain LZ4 with bit shuffling take 1.6 times as long to read
(benchmarks/crop_read.py).
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.files import atomic_write
from medssl.shapes import Index3D
from medssl.store.container import Contents, array_to_fill, box_shape, checksum, damaged, missing

SUFFIX = ".b2nd"
CHUNK_VOXELS, BLOCK_VOXELS = (64, 64, 64), (16, 16, 32)
_ERRORS = (OSError, RuntimeError, ValueError)


def write(path: Path, voxels: npt.NDArray[Any], contents: Contents) -> None:
    """Write (D, H, W) voxels and their contents. Raises DataError if the write fails."""
    import blosc2

    packing = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    small = {name: np.ascontiguousarray(a) for name, a in contents.arrays.items()}
    described = json.dumps(
        {**contents.metadata, "arrays": {n: [a.dtype.str, list(a.shape)] for n, a in small.items()}}, sort_keys=True
    )
    with atomic_write(path, library_errors=(RuntimeError, ValueError)) as draft:
        stored = blosc2.asarray(
            np.ascontiguousarray(voxels),
            urlpath=str(draft),
            mode="w",
            chunks=tuple(map(min, CHUNK_VOXELS, voxels.shape)),
            blocks=tuple(map(min, BLOCK_VOXELS, voxels.shape)),
            cparams={**packing, "splitmode": blosc2.SplitMode.ALWAYS_SPLIT},
        )
        stored.schunk.vlmeta["facts"] = described
        # blosc2 takes sixteen such entries in a file; a label may have 255 classes.
        if small:
            stored.schunk.vlmeta["arrays"] = b"".join(small[name].tobytes() for name in sorted(small))
        stored.schunk.vlmeta["checksum"] = checksum(voxels, described, small)
        del stored


def read_contents(path: Path, scan_id: str) -> Contents:
    """The contents beside the voxels. Raises DataError that names the scan."""
    return _contents(_opened(path, scan_id), path, scan_id)


def read_box(
    path: Path, scan_id: str, start: Index3D, stop: Index3D, *, out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """The voxels in [start, stop), unpacked into `out` without a further copy if it fits. Raises DataError that names
    the scan.
    """
    stored = _opened(path, scan_id)
    voxels = array_to_fill(out, box_shape(path, scan_id, start, stop, stored.shape), stored.dtype)
    try:
        stored.get_slice_numpy(voxels, (start, stop))
    except _ERRORS as error:
        raise damaged(scan_id, path, error) from error
    return voxels


def fetch(path: Path, scan_id: str, start: Index3D, stop: Index3D) -> None:
    """Read the packed chunks that a box touches."""
    stored = _opened(path, scan_id)
    rows = [range(a // c, (b - 1) // c + 1) for a, b, c in zip(start, stop, stored.chunks, strict=True)]
    counts = [-(-n // c) for n, c in zip(stored.shape, stored.chunks, strict=True)]
    for d, h, w in product(*rows):
        stored.schunk.get_chunk((d * counts[1] + h) * counts[2] + w)


def verify(path: Path, scan_id: str) -> None:
    """Unpack everything and compare with the recorded checksum. Raises DataError if they differ."""
    stored = _opened(path, scan_id)
    arrays = _contents(stored, path, scan_id).arrays
    voxels = read_box(path, scan_id, (0, 0, 0), stored.shape)
    if checksum(voxels, stored.schunk.vlmeta["facts"], arrays) != stored.schunk.vlmeta["checksum"]:
        raise damaged(scan_id, path, "the checksum differs")


def _opened(path: Path, scan_id: str) -> Any:
    """The open blosc2 array, with nothing unpacked yet. A memory map saves the copy out of the file cache."""
    import blosc2

    try:
        return blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    except FileNotFoundError as error:
        raise missing(scan_id, path) from error
    except _ERRORS as error:
        raise damaged(scan_id, path, error) from error


def _contents(stored: Any, path: Path, scan_id: str) -> Contents:
    try:
        meta = stored.schunk.vlmeta
        metadata = json.loads(meta["facts"])
        arrays, remaining = {}, memoryview(meta.get("arrays", b""))
        for name, (dtype, shape) in sorted(metadata.pop("arrays").items()) if remaining else ():
            arrays[name] = np.ndarray(shape, dtype, buffer=remaining)
            remaining = remaining[arrays[name].nbytes :]
    except (*_ERRORS, KeyError, TypeError) as error:
        raise damaged(scan_id, path, error) from error
    return Contents(metadata, arrays)
