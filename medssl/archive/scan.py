"""The first layer: the bytes of one file to a header record. Bounded, without pixels, never raising for what is in a
file.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.bounded import BoundedReader
from medssl.archive.dataset import FIRST_BYTES, looks_like_dataset, read_dataset
from medssl.archive.discover import Stamp
from medssl.archive.header import record_of
from medssl.archive.index import IndexedFile
from medssl.archive.limits import Limits
from medssl.archive.nifti import HEADER_BYTES, is_nifti, parse_header
from medssl.archive.reasons import Reason
from medssl.archive.record import record_json
from medssl.archive.rejection import Rejected
from medssl.archive.tolerant import read_tolerantly

_NIFTI_ENDINGS = (".nii", ".nii.gz", ".hdr", ".hdr.gz")


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
    if os.fspath(path).endswith("/dataset.json"):
        return IndexedFile(path, root, stamp, "dataset", None, "", None, None)
    try:
        return _scanned(path, root, stamp, limits)
    except Rejected as rejected:
        kind = "nifti" if path.name.lower().endswith(_NIFTI_ENDINGS) else "other"
        return IndexedFile(path, root, stamp, kind, rejected.reason, rejected.finding, None, None)
    except OSError as error:
        finding = f"it cannot be read ({error.strerror})"
        return IndexedFile(path, root, stamp, "other", Reason.IO_ERROR, finding, None, None)


def _scanned(path: Path, root: Path, stamp: Stamp, limits: Limits) -> IndexedFile:
    if stamp.size == 0:
        raise Rejected(Reason.EMPTY_FILE, "the file has no bytes")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        start = os.pread(descriptor, FIRST_BYTES, 0)
        kind, series, record = _recognised(path, descriptor, start, stamp, limits)
        facts = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if (facts.st_size, facts.st_mtime_ns) != (stamp.size, stamp.mtime_ns):
        raise Rejected(Reason.IN_FLUX, "the file changed while its header was read")
    return IndexedFile(path, root, stamp, kind, None, "", series, record)


def _recognised(path: Path, descriptor: int, start: bytes, stamp: Stamp, limits: Limits) -> tuple[str, str, str]:
    """(kind, key of the series, record) by the first bytes of a file, never by its name. Raises Rejected."""
    if start[128:132] == b"DICM":
        return _dicom(descriptor, start, stamp, limits)
    if start.startswith(b"\x1f\x8b\x08"):
        with BoundedReader(path) as reader:
            return _nifti(path, reader.read(HEADER_BYTES), limits)
    if is_nifti(start) or path.name.lower().endswith(_NIFTI_ENDINGS):
        return _nifti(path, start, limits)
    if looks_like_dataset(start):
        try:
            return _dicom(descriptor, start, stamp, limits)
        except Rejected as rejected:
            if rejected.reason is not Reason.BAD_HEADER:
                raise
    raise Rejected(Reason.NOT_DICOM, "its first bytes are neither DICOM nor NIfTI")


def _dicom(descriptor: int, start: bytes, stamp: Stamp, limits: Limits) -> tuple[str, str, str]:
    def read(count: int) -> bytes:
        return os.pread(descriptor, count, 0)

    try:
        dataset = read_dataset(read, start, stamp.size, limits)
    except Rejected as refused:
        if refused.reason is not Reason.BAD_HEADER:
            raise
        dataset = read_tolerantly(read, stamp.size, limits, refused)
    record = record_of(dataset, stamp.size)
    return "dicom", f"dicom:{record.study}/{record.series}", record_json(record)


def _nifti(path: Path, start: bytes, limits: Limits) -> tuple[str, str, str]:
    if not is_nifti(start) and not path.name.lower().endswith(_NIFTI_ENDINGS):
        raise Rejected(Reason.NOT_DICOM, "its first bytes are neither DICOM nor NIfTI")
    header = parse_header(start, limits=limits)
    record = {"shape": header.shape, "affine_ras_mm": header.affine_ras_mm.ravel().tolist(), "flags": header.flags}
    return "nifti", f"nifti:{path}", json.dumps(record)
