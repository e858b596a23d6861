"""The first layer: the bytes of one file to a header record. Bounded, without pixels, never raising for what is in a
file.
"""

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.dicom.dataset import FIRST_BYTES, looks_like_dataset, read_dataset
from medssl.archive.dicom.header import record_of
from medssl.archive.dicom.label_record import label_record_json, read_label_record
from medssl.archive.dicom.record import record_json
from medssl.archive.dicom.tolerant import read_tolerantly
from medssl.archive.index.entries import IndexedFile, series_key
from medssl.archive.limits import Limits
from medssl.archive.nifti.read import HEADER_BYTES, is_nifti, parse_header
from medssl.archive.rejection import Rejected
from medssl.archive.sources.open import open_source
from medssl.archive.sources.source import UNKNOWN_BYTES, HeadReader, has_no_size, is_plain
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.reasons import Reason

_GZIP = b"\x1f\x8b\x08"
# Packed files that hold other files. Office documents and programs are zips too, told by their first member.
_PACKED = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_NO_ARCHIVES = (b"[Content_Types].xml", b"mimetype", b"META-INF/", b"AndroidManifest.xml", b"_rels/")
_NIFTI_ENDINGS = (".nii", ".nii.gz", ".hdr", ".hdr.gz")


@dataclass(frozen=True)
class FileBatch:
    """Files whose headers one worker reads in one go."""

    root: Path
    files: tuple[tuple[Path, FileStamp], ...]
    limits: Limits


def read_headers(batch: FileBatch) -> list[IndexedFile]:
    """Header records of a parcel's files, which all lie in one source."""
    if is_plain(batch.files[0][0]):
        return [scan_file(path, batch.root, stamp, limits=batch.limits) for path, stamp in batch.files]
    stamps = dict(batch.files)
    try:
        with open_source(batch.files[0][0], batch.limits) as source:
            return [
                scan_content(path, batch.root, stamps[path], read=read, limits=batch.limits)
                for path, read in source.starts(list(stamps))
            ]
    except Rejected as rejected:
        return [left_out(path, batch.root, stamp, rejected) for path, stamp in batch.files]


def scan_file(path: Path, root: Path, stamp: FileStamp, *, limits: Limits) -> IndexedFile:
    """What one file of a folder is: its kind, its header as a record, or the reason why it is left out."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            found = scan_content(path, root, stamp, read=lambda count: os.pread(descriptor, count, 0), limits=limits)
            facts = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return left_out(path, root, stamp, Rejected(Reason.IO_ERROR, f"it cannot be read ({error.strerror})"))
    if (facts.st_size, facts.st_mtime_ns) != (stamp.size, stamp.mtime_ns):
        return left_out(path, root, stamp, Rejected(Reason.IN_FLUX, "the file changed while its header was read"))
    return found


def scan_content(path: Path, root: Path, stamp: FileStamp, *, read: HeadReader, limits: Limits) -> IndexedFile:
    """The same by the first bytes of a file, wherever it lies; `read(n)` gives its first n bytes."""
    if os.fspath(path).endswith("/dataset.json"):
        return IndexedFile(path, root, stamp, "dataset", None, "", None, None)
    try:
        size = UNKNOWN_BYTES if has_no_size(path) else stamp.size
        if size == 0:
            raise Rejected(Reason.EMPTY_FILE, "the file has no bytes")
        kind, series, record = _recognised(path, read, size, limits)
    except Rejected as rejected:
        return left_out(path, root, stamp, rejected)
    return IndexedFile(path, root, stamp, kind, None, "", series, record)


def left_out(path: Path, root: Path, stamp: FileStamp, rejected: Rejected) -> IndexedFile:
    """A file that is left out by itself."""
    kind = "nifti" if path.name.lower().endswith(_NIFTI_ENDINGS) else "other"
    if rejected.reason is Reason.CONTAINER:
        kind = "container"
        if not is_plain(path):
            rejected = Rejected(Reason.CONTAINER_NESTED, rejected.detail)
    return IndexedFile(path, root, stamp, kind, rejected.reason, rejected.detail, None, None)


def _recognised(path: Path, read: HeadReader, size: int, limits: Limits) -> tuple[str, str, str]:
    """(kind, key of the series, record) by the first bytes of a file, never by its name. Raises Rejected."""
    start = read(FIRST_BYTES)
    if start[128:132] == b"DICM":
        return _dicom(read, start, size, limits)
    if start.startswith(_GZIP):
        return _gzipped(path, _unzipped(start, read), limits)
    if is_nifti(start) or path.name.lower().endswith(_NIFTI_ENDINGS):
        return _nifti(path, start, limits)
    if packed := _packed(start):
        raise Rejected(Reason.CONTAINER, f"a {packed} file")
    if looks_like_dataset(start):
        try:
            return _dicom(read, start, size, limits)
        except Rejected as rejected:
            if rejected.reason is not Reason.BAD_HEADER:
                raise
    raise Rejected(Reason.NOT_DICOM, "its first bytes are neither DICOM nor NIfTI")


def _gzipped(path: Path, content: bytes, limits: Limits) -> tuple[str, str, str]:
    """As `_recognised`, of the content of a gzip file."""
    if not is_nifti(content) and (
        content[128:132] == b"DICM" or _packed(content) or path.name.lower().endswith((".dcm.gz", ".ima.gz"))
    ):
        raise Rejected(Reason.CONTAINER, "a gzip file")
    return _nifti(path, content, limits)


def _unzipped(start: bytes, read: HeadReader) -> bytes:
    """The first bytes behind gunzip. Raises Rejected where the stream is damaged there."""
    try:
        content = zlib.decompressobj(wbits=31).decompress(start, FIRST_BYTES)
        if len(content) < HEADER_BYTES:
            content = zlib.decompressobj(wbits=31).decompress(read(8 * FIRST_BYTES), FIRST_BYTES)
    except zlib.error as error:
        raise Rejected(Reason.TRUNCATED, "its gzip stream is damaged") from error
    return content


def _packed(start: bytes) -> str | None:
    """What kind of archive begins with these bytes, if any."""
    if start[257:262] == b"ustar":
        return "tar"
    found = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
    return None if found == "zip" and start[30:].startswith(_NO_ARCHIVES) else found


def _dicom(read: HeadReader, start: bytes, size: int, limits: Limits) -> tuple[str, str, str]:
    try:
        dataset = read_dataset(read, start, size, limits)
    except Rejected as refused:
        if refused.reason is not Reason.BAD_HEADER:
            raise
        dataset = read_tolerantly(read, size, limits, refused)
    record = record_of(dataset, size)
    if record.verdict == Reason.LABEL_OBJECT:
        label = read_label_record(read, start, size, record=record, limits=limits)
        return "label", f"label:{record.study}/{record.series}", label_record_json(label)
    return "dicom", f"dicom:{record.study}/{record.series}", record_json(record)


def _nifti(path: Path, start: bytes, limits: Limits) -> tuple[str, str, str]:
    if not is_nifti(start) and not path.name.lower().endswith(_NIFTI_ENDINGS):
        raise Rejected(Reason.NOT_DICOM, "its first bytes are neither DICOM nor NIfTI")
    header = parse_header(start, limits=limits)
    record = {"shape": header.shape, "affine_ras_mm": header.affine_ras_mm.ravel().tolist(), "flags": header.flags}
    return "nifti", series_key(path), json.dumps(record)
