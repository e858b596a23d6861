"""Tar files, compressed or not, and single compressed files as a source: read from front to back, never unpacked."""

import math
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.sources.location import member_path
from medssl.archive.sources.members import (
    CHUNK_BYTES,
    ForwardReader,
    chunks,
    head_reader,
    member_folders,
    translated_errors,
    with_paths,
)
from medssl.archive.sources.source import FileContent, HeadReader
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason

_MAX_MTIME_NS = 2**63 - 1


class TarSource:
    """One tar file. A member counts as unchanged by its size and time.

    A compressed tar has no directory: every pass inflates it up to the last member that is asked for.

    Args:
        container: Path of the tar file.
        content: Starts a new pass over its unpacked content.
        limits: Of one member and of all together.
    """

    def __init__(self, container: Path, content: Callable[[], ForwardReader], limits: Limits) -> None:
        self._container, self._content, self._limits = container, content, limits

    def folders(self) -> Iterator[Folder]:
        """See `FileSource`."""
        members = ((member.name, _problem(member, self._limits) or _stamp(member)) for member, _ in self._members())
        return member_folders(self._container, members, self._limits)

    def headers(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """See `FileSource`: in the order of the container."""
        for path, member, content in self._select(paths):
            yield path, head_reader(_member_reader(member, content))

    def contents(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """See `FileSource`: in the order of the container."""
        for path, member, content in self._select(paths):
            yield FileContent(path, _stamp(member), chunks(_member_reader(member, content), member.size))

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, ForwardReader]]:
        """Members other than folders, in a new pass."""
        content = self._content()
        with translated_errors():
            tar: Any = tarfile.TarFile(fileobj=cast("Any", content), encoding="utf-8", errors="replace")
        while True:
            with translated_errors():
                member = tar.next()
            if member is None:
                break
            tar.members.clear()  # which would grow with the container
            if not member.isdir():
                yield member, content
        # A sound tar file ends with blocks of zeros; tarfile takes any damaged header for its end.
        if content.last.strip(b"\0"):
            raise Rejected(Reason.CONTAINER_BROKEN, f"the tar file breaks off at byte {content.tell()}")

    def _select(self, paths: Sequence[Path]) -> Iterator[tuple[Path, tarfile.TarInfo, ForwardReader]]:
        """The members at those paths; the pass ends with the last of them."""
        missing = set(paths)
        current: list[tuple[tarfile.TarInfo, ForwardReader]] = []

        def names() -> Iterator[tuple[str, FileStamp]]:
            for member, content in self._members():
                current[:] = [(member, content)]
                yield member.name, _stamp(member)

        for path, _ in with_paths(self._container, names()):
            if path in missing:
                missing.remove(path)
                yield path, *current[0]
            if not missing:
                return
        raise Rejected(Reason.IN_FLUX, f"{len(missing)} members are not in the container any more")


class SingleFileSource:
    """A compressed file that holds one file, under its own name without the last suffix."""

    def __init__(self, container: Path, content: Callable[[], ForwardReader], limits: Limits) -> None:
        self._content, self._limits = content, limits
        self._path = member_path(container, container.stem)

    def folders(self) -> Iterator[Folder]:
        """See `FileSource`."""
        yield Folder(self._path.parent, {self._path.name: self._stamp()})

    def headers(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """See `FileSource`."""
        yield self._path, head_reader(self._content().read)

    def contents(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """See `FileSource`."""
        stamp = self._stamp()
        yield FileContent(self._path, stamp, chunks(self._content().read, stamp.size))

    def _stamp(self) -> FileStamp:
        """Size and CRC of the content, which takes unpacking it."""
        content, checksum = self._content(), 0
        while chunk := content.read(CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
            if content.tell() > self._limits.copied_bytes:
                raise Rejected(Reason.TOO_LARGE, f"more than {self._limits.copied_bytes} bytes")
        return FileStamp(content.tell(), checksum)


def _stamp(member: tarfile.TarInfo) -> FileStamp:
    # A header may hold any number, or none at all; the index holds 64 bits.
    seconds = member.mtime if math.isfinite(member.mtime) else 0
    return FileStamp(member.size, max(-_MAX_MTIME_NS, min(_MAX_MTIME_NS, int(seconds * 1e9))))


def _problem(member: tarfile.TarInfo, limits: Limits) -> Rejected | None:
    """Why a member is not read; None where it is."""
    if not member.isreg() or member.issparse():
        return Rejected(Reason.CONTAINER_UNSAFE, "the member is a link, a device or sparse")
    if member.size > limits.copied_bytes:
        return Rejected(Reason.TOO_LARGE, f"{member.size} bytes, above {limits.copied_bytes}")
    return None


def _member_reader(member: tarfile.TarInfo, content: ForwardReader) -> Callable[[int], bytes]:
    """Reads forward, up to the end of a member."""
    end = member.offset_data + member.size
    content.seek(member.offset_data)

    def read(count: int) -> bytes:
        return content.read(min(count, end - content.tell()))

    return read
