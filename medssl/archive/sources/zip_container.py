"""Zip files as a source: members are never unpacked to disk under their own names, and only those asked for."""

import stat
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.sources.members import (
    MIN_BOMB_BYTES,
    Member,
    chunks,
    head_reader,
    member_folders,
    translated_errors,
    with_paths,
)
from medssl.archive.sources.source import FileContent, HeadReader
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason

# APPNOTE.TXT 4.4.5. Python's other methods inflate a chunk without bound.
_READ_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# APPNOTE.TXT 4.3.14 to 4.3.16: the end record, its comment, and before it the zip64 end record with its locator.
_END_BYTES = 22
_MAX_COMMENT_BYTES = 65535
_ZIP64_END_BYTES = 76
# Of an entry of the directory: 46 bytes, name, extra fields.
_ENTRY_BYTES = 1024


class ZipSource:
    """One zip file. A member counts as unchanged by its size and CRC."""

    def __init__(self, container: Path, file: BinaryIO, limits: Limits) -> None:
        self._container, self._limits = container, limits
        size = file.seek(0, 2)
        with translated_errors():
            _check_directory(file, size, limits)
            self._zip = zipfile.ZipFile(file)
        self._infos = [info for info in self._zip.infolist() if not info.is_dir()]
        unpacked = sum(info.file_size for info in self._infos)
        if unpacked > max(MIN_BOMB_BYTES, size * limits.container_ratio):
            raise Rejected(Reason.CONTAINER_BOMB, f"{size} bytes say that they unpack to {unpacked}")

    def folders(self) -> Iterator[Folder]:
        """See `FileSource`."""
        if self._infos and all(info.flag_bits & _ENCRYPTED for info in self._infos):
            raise Rejected(Reason.CONTAINER_ENCRYPTED, "all its members are encrypted")
        return member_folders(self._container, self._members(), self._limits)

    def headers(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """See `FileSource`: in the order in which they lie in the file."""
        for path, info in self._select(paths):
            try:
                with translated_errors(), self._zip.open(info) as stream:
                    yield path, head_reader(_guarded(stream.read))
            except Rejected as rejected:
                yield path, _raising(rejected)

    def contents(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """See `FileSource`: in the order in which they lie in the file."""
        for path, info in self._select(paths):
            with translated_errors(), self._zip.open(info) as stream:
                yield FileContent(path, _stamp(info), chunks(_guarded(stream.read), info.file_size))

    def _members(self) -> Iterator[Member]:
        for info in self._infos:
            yield info.filename.replace("\\", "/"), _problem(info, self._limits) or _stamp(info)

    def _select(self, paths: Sequence[Path]) -> list[tuple[Path, zipfile.ZipInfo]]:
        requested = set(paths)
        members = zip(with_paths(self._container, self._members()), self._infos, strict=True)
        selected = [(path, info) for (path, _), info in members if path in requested]
        if len(selected) < len(requested):
            missing = len(requested) - len(selected)
            raise Rejected(Reason.IN_FLUX, f"{missing} members are not in the container any more")
        return sorted(selected, key=lambda member: member[1].header_offset)


def _stamp(info: zipfile.ZipInfo) -> FileStamp:
    return FileStamp(info.file_size, info.CRC)


def _problem(info: zipfile.ZipInfo, limits: Limits) -> Rejected | None:
    """Why a member is not read; None where it is."""
    if info.flag_bits & _ENCRYPTED:
        return Rejected(Reason.CONTAINER_ENCRYPTED, "the member is encrypted")
    if info.compress_type not in _READ_METHODS:
        return Rejected(Reason.CONTAINER_BROKEN, f"compression method {info.compress_type} is not read")
    file_type = stat.S_IFMT(info.external_attr >> 16)
    if file_type not in (0, stat.S_IFREG):
        return Rejected(Reason.CONTAINER_UNSAFE, "the member is a link or a device")
    if info.file_size > limits.copied_bytes:
        return Rejected(Reason.TOO_LARGE, f"{info.file_size} bytes, above {limits.copied_bytes}")
    return None


def _check_directory(file: BinaryIO, size: int, limits: Limits) -> None:
    """Raise Rejected where the directory is longer than the allowed number of members needs.

    zipfile reads the whole directory into memory, so its length is taken from the end record before.
    """
    tail = min(size, _END_BYTES + _MAX_COMMENT_BYTES + _ZIP64_END_BYTES)
    file.seek(size - tail)
    data = file.read(tail)
    end = data.rfind(b"PK\x05\x06")
    if end < 0 or len(data) < end + _END_BYTES:
        raise Rejected(Reason.CONTAINER_BROKEN, "its directory is missing")
    n_bytes = struct.unpack_from("<I", data, end + 12)[0]
    zip64_end = data.rfind(b"PK\x06\x06", 0, end)
    if n_bytes == 0xFFFFFFFF and zip64_end >= 0:
        n_bytes = struct.unpack_from("<Q", data, zip64_end + 40)[0]
    if n_bytes > limits.container_members * _ENTRY_BYTES:
        raise Rejected(Reason.CONTAINER_BOMB, f"its directory has {n_bytes} bytes")


def _guarded(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The same read, with what a damaged member makes it raise as Rejected."""

    def checked(count: int) -> bytes:
        with translated_errors():
            return read(count)

    return checked


def _raising(rejected: Rejected) -> HeadReader:
    def read_head(count: int) -> bytes:
        raise rejected

    return read_head
