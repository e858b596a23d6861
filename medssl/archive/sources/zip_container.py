"""Zip files as a source: nothing is unpacked to disk by a name of the archive, and no more than is asked for."""

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
    chunks,
    head_reader,
    member_folders,
    translated_errors,
    with_paths,
)
from medssl.archive.sources.source import FileContent, HeadReader
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason

# APPNOTE.TXT 4.4.5; the others that Python knows inflate a piece without bound.
_READ_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_LONGEST_COMMENT = 65535
# Of an entry of the directory: 46 bytes, name, extra fields.
_ENTRY_BYTES = 1024


class ZipSource:
    """One zip file. A member is recognised as unchanged by its size and CRC."""

    def __init__(self, archive: Path, file: BinaryIO, limits: Limits) -> None:
        self._archive, self._limits = archive, limits
        size = file.seek(0, 2)
        with translated_errors():
            _check_directory(file, size, limits)
            self._zip = zipfile.ZipFile(file)
        self._infos = [info for info in self._zip.infolist() if not info.is_dir()]
        unpacked = sum(info.file_size for info in self._infos)
        if unpacked > max(MIN_BOMB_BYTES, size * limits.container_ratio):
            raise Rejected(Reason.CONTAINER_BOMB, f"{size} bytes say that they unpack to {unpacked}")

    def folders(self) -> Iterator[Folder]:
        """As `Source`."""
        if self._infos and all(info.flag_bits & _ENCRYPTED for info in self._infos):
            raise Rejected(Reason.CONTAINER_ENCRYPTED, "all its members are encrypted")
        return member_folders(self._archive, self._members(), self._limits)

    def starts(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """As `Source`, in the order in which they lie in the file."""
        for path, info in self._found(paths):
            try:
                with translated_errors(), self._zip.open(info) as stream:
                    yield path, head_reader(_guarded(stream.read))
            except Rejected as rejected:
                yield path, _raising(rejected)

    def copies(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """As `Source`, in the order in which they lie in the file."""
        for path, info in self._found(paths):
            with translated_errors(), self._zip.open(info) as stream:
                yield FileContent(
                    path, FileStamp(info.file_size, info.CRC), chunks(_guarded(stream.read), info.file_size)
                )

    def _members(self) -> Iterator[tuple[str, FileStamp | Rejected]]:
        for info in self._infos:
            yield info.filename.replace("\\", "/"), _judged(info, self._limits) or FileStamp(info.file_size, info.CRC)

    def _found(self, paths: Sequence[Path]) -> list[tuple[Path, zipfile.ZipInfo]]:
        wanted = set(paths)
        places = zip((place for place, _ in with_paths(self._archive, self._members())), self._infos, strict=True)
        found = [(place, info) for place, info in places if place in wanted]
        if len(found) < len(wanted):
            raise Rejected(Reason.IN_FLUX, f"{len(wanted) - len(found)} members are not in the archive any more")
        return sorted(found, key=lambda one: one[1].header_offset)


def _judged(info: zipfile.ZipInfo, limits: Limits) -> Rejected | None:
    """Why a member is not read, if it is not."""
    if info.flag_bits & _ENCRYPTED:
        return Rejected(Reason.CONTAINER_ENCRYPTED, "the member is encrypted")
    if info.compress_type not in _READ_METHODS:
        return Rejected(Reason.CONTAINER_BROKEN, f"compression method {info.compress_type} is not read")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return Rejected(Reason.CONTAINER_UNSAFE, "the member is a link or a device")
    if info.file_size > limits.copied_bytes:
        return Rejected(Reason.TOO_LARGE, f"{info.file_size} bytes, above {limits.copied_bytes}")
    return None


def _check_directory(file: BinaryIO, size: int, limits: Limits) -> None:
    """Raise Rejected where the directory is longer than that of as many members as are allowed: zipfile reads it
    whole.
    """
    tail = min(size, 22 + _LONGEST_COMMENT + 76)
    file.seek(size - tail)
    data = file.read(tail)
    end = data.rfind(b"PK\x05\x06")
    if end < 0 or len(data) < end + 22:
        raise Rejected(Reason.CONTAINER_BROKEN, "its directory is missing")
    n_bytes = struct.unpack_from("<I", data, end + 12)[0]
    wide = data.rfind(b"PK\x06\x06", 0, end)
    if n_bytes == 0xFFFFFFFF and wide >= 0:
        n_bytes = struct.unpack_from("<Q", data, wide + 40)[0]
    if n_bytes > limits.container_members * _ENTRY_BYTES:
        raise Rejected(Reason.CONTAINER_BOMB, f"its directory has {n_bytes} bytes")


def _guarded(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def checked(count: int) -> bytes:
        with translated_errors():
            return read(count)

    return checked


def _raising(rejected: Rejected) -> HeadReader:
    def read(count: int) -> bytes:
        raise rejected

    return read
