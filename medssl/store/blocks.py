"""One array in one file: LZ4-packed blocks (python-blosc2), written whole or not at all.

Chunks are 64 cubed; within a chunk, sub-blocks of 16 x 16 x 32 voxels (16 KB, the first-level cache) are unpacked
alone, so that a crop unpacks little beyond itself. LZ4 in its slow-writing variant reads as plain LZ4 does, with
longer matches and so a little faster; on a T1 head, whole 64-cubed blocks of plain LZ4 with bit shuffling take 1.6
times as long to read (benchmarks/crop_read.py).
"""

import json
import os
import secrets
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.errors import DataError

CHUNK_VOXELS, BLOCK_VOXELS = (64, 64, 64), (16, 16, 32)


def write_blocks(
    path: Path, array: npt.NDArray[Any], *, facts: dict[str, Any], arrays: dict[str, npt.NDArray[Any]] | None = None
) -> None:
    """Write (D, H, W) voxels with their facts (JSON) and small arrays beside them.

    Raises DataError when the disk refuses.
    """
    import blosc2

    packing = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    # Two writers of one scan, be they on two machines, are kept apart; the last to finish wins with a whole file.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    small = {name: np.ascontiguousarray(a) for name, a in (arrays or {}).items()}
    described = json.dumps(
        {**facts, "arrays": {n: [a.dtype.str, list(a.shape)] for n, a in small.items()}}, sort_keys=True
    )
    try:
        stored = blosc2.asarray(
            np.ascontiguousarray(array),
            urlpath=str(draft),
            mode="w",
            chunks=tuple(map(min, CHUNK_VOXELS, array.shape)),
            blocks=tuple(map(min, BLOCK_VOXELS, array.shape)),
            cparams={**packing, "splitmode": blosc2.SplitMode.ALWAYS_SPLIT},
        )
        stored.schunk.vlmeta["facts"] = described
        for name, a in small.items():
            stored.schunk.vlmeta[f"array/{name}"] = a.tobytes()
        stored.schunk.vlmeta["checksum"] = checksum(array, described, small)
        del stored
        _flush(draft)
        os.replace(draft, path)
    except (OSError, RuntimeError, ValueError) as error:
        # blosc2 does not say why a write failed: the free space tells a full disk from missing rights.
        raise DataError(
            f"{path.name} cannot be written to the store: {error} ({_free_mb(path.parent)} MB are free there). Check "
            "space and rights of the folder."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove what writers that were killed have left in a store; nobody else may be writing to it."""
    for draft in folder.glob(".*.tmp"):
        draft.unlink(missing_ok=True)


def open_blocks(path: Path, scan_id: str) -> Any:
    """The open blosc2 array; nothing is unpacked yet. Raises DataError that names the scan."""
    import blosc2

    try:
        return blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
    except FileNotFoundError as error:
        raise DataError(
            f"scan {scan_id} is not in the store ({path.name} is missing). Run the ingest of this cohort again; "
            "it adds what is missing."
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise damaged(scan_id, path, error) from error


def read_box(
    path: Path,
    scan_id: str,
    start: tuple[int, int, int],
    stop: tuple[int, int, int],
    *,
    out: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """The voxels in [start, stop), unpacking only the blocks that the box touches.

    out: contiguous array of the box's shape and the file's type, which is filled and returned: no copy on the way.
    Raises DataError that names the scan.
    """
    stored = open_blocks(path, scan_id)
    shape = tuple(b - a for a, b in zip(start, stop, strict=True))
    if not all(0 <= a < b <= n for a, b, n in zip(start, stop, stored.shape, strict=True)):
        raise damaged(scan_id, path, f"it has {stored.shape} voxels, which do not hold the box {start} to {stop}")
    fits = out is not None and (out.shape, out.dtype) == (shape, stored.dtype) and out.flags.c_contiguous
    voxels = out if out is not None and fits else np.empty(shape, stored.dtype)
    try:
        stored.get_slice_numpy(voxels, (start, stop))
    except (OSError, RuntimeError, ValueError) as error:
        raise damaged(scan_id, path, error) from error
    return voxels


def read_facts(path: Path, scan_id: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """(facts, small arrays) that lie beside the voxels."""
    stored = open_blocks(path, scan_id)
    try:
        meta = stored.schunk.vlmeta
        facts = json.loads(meta["facts"])
        shapes = facts.pop("arrays")
        arrays = {n: np.frombuffer(meta[f"array/{n}"], dtype).reshape(shape) for n, (dtype, shape) in shapes.items()}
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise damaged(scan_id, path, error) from error
    return facts, arrays


def verify_blocks(path: Path, scan_id: str) -> None:
    """Unpack everything and compare with the checksum that was written. Raises DataError where they differ."""
    stored = open_blocks(path, scan_id)
    _, arrays = read_facts(path, scan_id)
    voxels = read_box(path, scan_id, (0, 0, 0), stored.shape)
    if checksum(voxels, stored.schunk.vlmeta["facts"], arrays) != stored.schunk.vlmeta["checksum"]:
        raise damaged(scan_id, path, "the checksum differs")


def checksum(array: npt.NDArray[Any], described: str, arrays: dict[str, npt.NDArray[Any]]) -> str:
    """Of voxels, facts and small arrays together."""
    digest = blake2b(described.encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def damaged(scan_id: str, path: Path, why: object) -> DataError:
    """The error of a file that cannot be unpacked."""
    return DataError(
        f"scan {scan_id} is damaged in the store ({path.name}: {why}). Delete that file and run the ingest of this "
        "cohort again."
    )


def _free_mb(folder: Path) -> int:
    return shutil.disk_usage(folder).free // 2**20


def _flush(path: Path) -> None:
    """Force the file to disk before it gets its name, so that a power cut leaves no half file under that name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
