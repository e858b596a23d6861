"""Flat voxels: unpacked in a safetensors file, read through a memory map, at three times the speed and more than twice
the disk of blocks. docs/decisions.md says when this container would go.

The price of a memory map: if the disk fails, or the file is shortened while it is read, the system ends the process
with SIGBUS instead of an error that names the scan. Plain reads of whole rows were 1.5 times as slow for a crop of 160
of 256 columns, and slower still for wider scans.
"""

import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medssl.files import atomic_write
from medssl.shapes import Index3D, Shape3D
from medssl.store.container import Contents, array_to_fill, box_shape, checksum, damaged, missing

SUFFIX = ".safetensors"
_VOXELS, _ABOUT = "voxels", "medssl"
_TYPES: Mapping[str, "np.dtype[Any]"] = {"I16": np.dtype("<i2"), "U8": np.dtype("u1")}
# Metadata and names of small arrays take some kilobytes: a larger header is not from medssl.
_MAX_HEADER_BYTES = 2**22


def write(path: Path, voxels: npt.NDArray[Any], contents: Contents) -> None:
    """Write (D, H, W) voxels and their contents. Raises DataError if the write fails."""
    arrays = {name: np.ascontiguousarray(a) for name, a in contents.arrays.items()}
    metadata = json.dumps(dict(contents.metadata), sort_keys=True)
    # One entry: safetensors does not keep the order of several, and the same scan must give the same bytes.
    about = json.dumps({"facts": metadata, "checksum": checksum(voxels, metadata, arrays)})
    with atomic_write(path, library_errors=(SafetensorError,)) as draft:
        save_file({**arrays, _VOXELS: np.ascontiguousarray(voxels)}, draft, metadata={_ABOUT: about})


def read_contents(path: Path, scan_id: str) -> Contents:
    """The contents beside the voxels. Raises DataError that names the scan."""
    return _beside(path, scan_id)[0]


def read_box(
    path: Path, scan_id: str, start: Index3D, stop: Index3D, *, out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """The voxels in [start, stop), into `out` if it fits. Raises DataError that names the scan."""
    stored = _mapped(path, scan_id)
    voxels = array_to_fill(out, box_shape(path, scan_id, start, stop, stored.shape), stored.dtype)
    voxels[...] = stored[tuple(map(slice, start, stop))]
    return voxels


def fetch(path: Path, scan_id: str, start: Index3D, stop: Index3D) -> None:
    """Read a box: there is nothing to unpack."""
    read_box(path, scan_id, start, stop)


def verify(path: Path, scan_id: str) -> None:
    """Read everything and compare with the recorded checksum. Raises DataError if they differ."""
    contents, metadata, written = _beside(path, scan_id)
    if checksum(_mapped(path, scan_id), metadata, contents.arrays) != written:
        raise damaged(scan_id, path, "the checksum differs")


def _mapped(path: Path, scan_id: str) -> npt.NDArray[Any]:
    """(D, H, W) voxels, memory-mapped; nothing is read yet."""
    try:
        with path.open("rb") as file:
            first, shape, dtype = _layout(file)
            size = os.fstat(file.fileno()).st_size
            if size < first + math.prod(shape) * dtype.itemsize:
                raise ValueError(f"it ends after {size} bytes, before its voxels do")
            return np.ndarray(shape, dtype, buffer=mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), offset=first)
    except FileNotFoundError as error:
        raise missing(scan_id, path) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(scan_id, path, error) from error


def _layout(file: BinaryIO) -> tuple[int, Shape3D, "np.dtype[Any]"]:
    """First byte, shape and type of the voxels, from the header (https://github.com/huggingface/safetensors describes
    its format): the safetensors library does not expose offsets.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    entry = json.loads(file.read(length))[_VOXELS]
    dtype = _TYPES[entry["dtype"]]
    (d, h, w), (begin, end) = entry["shape"], entry["data_offsets"]
    if min(d, h, w) < 1 or begin < 0 or end - begin != d * h * w * dtype.itemsize:
        raise ValueError(f"voxels of {(d, h, w)} in {end - begin} bytes")
    return 8 + length + begin, (d, h, w), dtype


def _beside(path: Path, scan_id: str) -> tuple[Contents, str, str]:
    """The contents, the text of the metadata, and the checksum."""
    _mapped(path, scan_id)  # a file that is too short is refused before safetensors maps it
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            arrays = {name: file.get_tensor(name) for name in file.keys() if name != _VOXELS}  # noqa: SIM118
        return Contents(json.loads(about["facts"]), arrays), about["facts"], about["checksum"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(scan_id, path, error) from error
