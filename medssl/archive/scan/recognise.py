"""The first layer: the first bytes of a file to a header record.

Reading is bounded, skips pixels, and never raises for the content of a file.
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
from medssl.archive.sources.location import Location, is_on_disk
from medssl.archive.sources.open import open_source
from medssl.archive.sources.source import UNKNOWN_BYTES, HeadReader
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.reasons import Reason

_GZIP = b"\x1f\x8b\x08"
# Office documents and programs are zip files too; their first member gives them away.
_CONTAINERS = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_DOCUMENTS = (b"[Content_Types].xml", b"mimetype", b"META-INF/", b"AndroidManifest.xml", b"_rels/")
_NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz")


@dataclass(frozen=True)
class FileBatch:
    """Files of one source whose headers one worker reads."""

    root: Path
    files: tuple[tuple[Path, FileStamp], ...]
    limits: Limits


def read_headers(batch: FileBatch) -> list[IndexedFile]:
    """Header records of a batch's files. Runs in a worker process."""
    if is_on_disk(batch.files[0][0]):
        return [scan_file(path, batch.root, stamp, limits=batch.limits) for path, stamp in batch.files]
    stamps = dict(batch.files)
    try:
        with open_source(batch.files[0][0], batch.limits) as source:
            return [
                scan_content(path, batch.root, stamps[path], read_head=read_head, limits=batch.limits)
                for path, read_head in source.headers(list(stamps))
            ]
    except Rejected as rejected:
        return [rejected_file(path, batch.root, stamp, rejected) for path, stamp in batch.files]


def scan_file(path: Path, root: Path, stamp: FileStamp, *, limits: Limits) -> IndexedFile:
    """The entry of a file on disk: its kind, its header as a record, or the reason why it is left out."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            entry = scan_content(
                path, root, stamp, read_head=lambda count: os.pread(descriptor, count, 0), limits=limits
            )
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return rejected_file(path, root, stamp, Rejected(Reason.IO_ERROR, f"it cannot be read ({error.strerror})"))
    if (status.st_size, status.st_mtime_ns) != (stamp.size, stamp.mtime_ns):
        return rejected_file(path, root, stamp, Rejected(Reason.IN_FLUX, "the file changed while its header was read"))
    return entry


def scan_content(path: Path, root: Path, stamp: FileStamp, *, read_head: HeadReader, limits: Limits) -> IndexedFile:
    """The entry of a file, wherever it lies. `read_head(n)` returns its first n bytes."""
    if os.fspath(path).endswith("/dataset.json"):
        return IndexedFile(path, root, stamp, "dataset", None, "", None, None)
    try:
        location = Location.parse(path)
        size = UNKNOWN_BYTES if location is not None and location.is_dicomweb else stamp.size
        if size == 0:
            raise Rejected(Reason.EMPTY_FILE, "the file has no bytes")
        kind, series, record = _recognise(path, read_head, size, limits)
    except Rejected as rejected:
        return rejected_file(path, root, stamp, rejected)
    return IndexedFile(path, root, stamp, kind, None, "", series, record)


def rejected_file(path: Path, root: Path, stamp: FileStamp, rejected: Rejected) -> IndexedFile:
    """The entry of a file that is left out, whatever series it would belong to."""
    kind = "nifti" if path.name.lower().endswith(_NIFTI_SUFFIXES) else "other"
    if rejected.reason is Reason.CONTAINER:
        kind = "container"
        if not is_on_disk(path):
            rejected = Rejected(Reason.CONTAINER_NESTED, rejected.detail)
    return IndexedFile(path, root, stamp, kind, rejected.reason, rejected.detail, None, None)


def _recognise(path: Path, read_head: HeadReader, size: int, limits: Limits) -> tuple[str, str, str]:
    """(kind, key of the series, record) of a file. Its first bytes count before its name. Raises Rejected."""
    head = read_head(FIRST_BYTES)
    if head[128:132] == b"DICM":
        return _dicom(read_head, head, size, limits)
    if head.startswith(_GZIP):
        return _gzipped(path, _gunzipped(head, read_head), limits)
    if is_nifti(head) or path.name.lower().endswith(_NIFTI_SUFFIXES):
        return _nifti(path, head, limits)
    if container := _container_type(head):
        raise Rejected(Reason.CONTAINER, f"a {container} file")
    if looks_like_dataset(head):
        try:
            return _dicom(read_head, head, size, limits)
        except Rejected as rejected:
            # Anything may look like the first element of a data set without preamble.
            if rejected.reason is not Reason.BAD_HEADER:
                raise
    raise Rejected(Reason.NOT_DICOM, "its first bytes are neither DICOM nor NIfTI")


def _gzipped(path: Path, content: bytes, limits: Limits) -> tuple[str, str, str]:
    """As `_recognise`, of the first bytes of a gzip file's content."""
    if not is_nifti(content) and (
        content[128:132] == b"DICM" or _container_type(content) or path.name.lower().endswith((".dcm.gz", ".ima.gz"))
    ):
        raise Rejected(Reason.CONTAINER, "a gzip file")
    return _nifti(path, content, limits)


def _gunzipped(head: bytes, read_head: HeadReader) -> bytes:
    """The first bytes of a gzip file's content. Raises Rejected where the stream is damaged there."""
    try:
        content = zlib.decompressobj(wbits=31).decompress(head, FIRST_BYTES)
        if len(content) < HEADER_BYTES:
            content = zlib.decompressobj(wbits=31).decompress(read_head(8 * FIRST_BYTES), FIRST_BYTES)
    except zlib.error as error:
        raise Rejected(Reason.TRUNCATED, "its gzip stream is damaged") from error
    return content


def _container_type(head: bytes) -> str | None:
    """What kind of container begins with these bytes; None where none does."""
    if head[257:262] == b"ustar":
        return "tar"
    container = next((name for magic, name in _CONTAINERS.items() if head.startswith(magic)), None)
    return None if container == "zip" and head[30:].startswith(_DOCUMENTS) else container


def _dicom(read_head: HeadReader, head: bytes, size: int, limits: Limits) -> tuple[str, str, str]:
    try:
        dataset = read_dataset(read_head, head, size, limits)
    except Rejected as rejected:
        if rejected.reason is not Reason.BAD_HEADER:
            raise
        dataset = read_tolerantly(read_head, size, limits, rejected)
    record = record_of(dataset, size)
    if record.reason == Reason.LABEL_OBJECT:
        label = read_label_record(read_head, head, size, record=record, limits=limits)
        return "label", f"label:{record.study}/{record.series}", label_record_json(label)
    return "dicom", f"dicom:{record.study}/{record.series}", record_json(record)


def _nifti(path: Path, head: bytes, limits: Limits) -> tuple[str, str, str]:
    if not is_nifti(head) and not path.name.lower().endswith(_NIFTI_SUFFIXES):
        raise Rejected(Reason.NOT_DICOM, "its first bytes are neither DICOM nor NIfTI")
    header = parse_header(head, limits=limits)
    record = {"shape": header.shape, "affine_ras_mm": header.affine_ras_mm.ravel().tolist(), "flags": header.flags}
    return "nifti", series_key(path), json.dumps(record)
