"""The first layer: the bytes of one file to a header record. Bounded, without pixels, never raising for what is in a
file.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.bounded import BoundedReader
from medssl.archive.discover import Stamp
from medssl.archive.index import IndexedFile
from medssl.archive.limits import Limits
from medssl.archive.nifti import HEADER_BYTES, is_nifti, parse_header
from medssl.archive.reasons import Reason
from medssl.archive.rejection import Rejected


@dataclass(frozen=True)
class Parcel:
    """Files whose headers one worker reads in one go."""

    root: Path
    files: tuple[tuple[Path, Stamp], ...]
    limits: Limits


def scan_parcel(parcel: Parcel) -> list[IndexedFile]:
    """Header records of a parcel's files."""
    return [scan_file(path, parcel.root, stamp, limits=parcel.limits) for path, stamp in parcel.files]


def scan_file(path: Path, root: Path, stamp: Stamp, *, limits: Limits) -> IndexedFile:
    """What one file is: its kind, its header as a record, or the reason why it is left out."""
    if path.name == "dataset.json":
        return IndexedFile(path, root, stamp, "dataset", None, "", None, None)
    try:
        start = _start(path)
        found = _recognised(path, root, stamp, start, limits)
        after = os.stat(path)
        if (after.st_size, after.st_mtime_ns) != (stamp.size, stamp.mtime_ns):
            raise Rejected(Reason.IN_FLUX, "the file changed while its header was read")
        return found
    except Rejected as rejected:
        kind = "nifti" if path.name.lower().endswith((".nii", ".nii.gz", ".hdr")) else "other"
        return IndexedFile(path, root, stamp, kind, rejected.reason, rejected.finding, None, None)
    except OSError as error:
        finding = f"it cannot be read ({error.strerror})"
        return IndexedFile(path, root, stamp, "other", Reason.IO_ERROR, finding, None, None)


def _start(path: Path) -> bytes:
    with BoundedReader(path) as reader:
        return reader.read(HEADER_BYTES)


def _recognised(path: Path, root: Path, stamp: Stamp, start: bytes, limits: Limits) -> IndexedFile:
    if is_nifti(start) or path.name.lower().endswith((".nii", ".nii.gz", ".hdr")):
        header = parse_header(start, limits=limits)
        record = {"shape": header.shape, "affine_ras_mm": header.affine_ras_mm.ravel().tolist(), "flags": header.flags}
        return IndexedFile(path, root, stamp, "nifti", None, "", f"nifti:{path}", json.dumps(record))
    raise Rejected(Reason.NOT_DICOM, "its first bytes are neither DICOM nor NIfTI")
