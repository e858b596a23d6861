"""Tar files, compressed or not, and single packed files as a source: read from front to back, never unpacked."""

import math
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.sources.members import (
    CHUNK_BYTES,
    ForwardReader,
    chunks,
    head_reader,
    member_folders,
    translated_errors,
    with_paths,
)
from medssl.archive.sources.source import FileContent, HeadReader, member_path
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason

_LATEST_NS = 2**63 - 1


class TarSource:
    """One tar file. A member is recognised as unchanged by its size and time.

    A compressed tar has no directory: every pass inflates it up to the last member that is asked for.
    """

    def __init__(self, archive: Path, forward: Callable[[], ForwardReader], limits: Limits) -> None:
        self._archive, self._forward, self._limits = archive, forward, limits

    def folders(self) -> Iterator[Folder]:
        """As `Source`."""
        members = ((member.name, _judged(member, self._limits) or _stamp(member)) for member, _ in self._members())
        return member_folders(self._archive, members, self._limits)

    def starts(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """As `Source`, in the order of the archive."""
        for path, member, forward in self._found(paths):
            yield path, head_reader(_within(member, forward))

    def copies(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """As `Source`, in the order of the archive."""
        for path, member, forward in self._found(paths):
            yield FileContent(path, _stamp(member), chunks(_within(member, forward), member.size))

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, ForwardReader]]:
        """Members that are no folders, in a new pass."""
        forward = self._forward()
        with translated_errors():
            tar: Any = tarfile.TarFile(fileobj=cast("Any", forward), encoding="utf-8", errors="replace")
        while True:
            with translated_errors():
                member = tar.next()
            if member is None:
                break
            tar.members.clear()  # which would grow with the archive
            if not member.isdir():
                yield member, forward
        if forward.last.strip(b"\0"):
            raise Rejected(Reason.CONTAINER_BROKEN, f"the tar file breaks off at byte {forward.tell()}")

    def _found(self, paths: Sequence[Path]) -> Iterator[tuple[Path, tarfile.TarInfo, ForwardReader]]:
        """Members at those places; the pass ends with the last of them."""
        missing = set(paths)
        passing: list[tuple[tarfile.TarInfo, ForwardReader]] = []

        def names() -> Iterator[tuple[str, FileStamp]]:
            for member, forward in self._members():
                passing[:] = [(member, forward)]
                yield member.name, _stamp(member)

        for place, _ in with_paths(self._archive, names()):
            if place in missing:
                missing.remove(place)
                yield place, *passing[0]
            if not missing:
                return
        raise Rejected(Reason.IN_FLUX, f"{len(missing)} members are not in the archive any more")


class SingleSource:
    """A packed file that holds one file, under its own name without the last ending."""

    def __init__(self, archive: Path, forward: Callable[[], ForwardReader], limits: Limits) -> None:
        self._archive, self._forward, self._limits = archive, forward, limits
        self._place = member_path(archive, archive.stem)

    def folders(self) -> Iterator[Folder]:
        """As `Source`."""
        yield Folder(self._place.parent, {self._place.name: self._stamp()})

    def starts(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """As `Source`."""
        yield self._place, head_reader(self._forward().read)

    def copies(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """As `Source`."""
        stamp = self._stamp()
        yield FileContent(self._place, stamp, chunks(self._forward().read, stamp.size))

    def _stamp(self) -> FileStamp:
        """Size and CRC of the content, which only unpacking tells."""
        forward, checksum = self._forward(), 0
        while part := forward.read(CHUNK_BYTES):
            checksum = zlib.crc32(part, checksum)
            if forward.tell() > self._limits.copied_bytes:
                raise Rejected(Reason.TOO_LARGE, f"more than {self._limits.copied_bytes} bytes")
        return FileStamp(forward.tell(), checksum)


def _stamp(member: tarfile.TarInfo) -> FileStamp:
    # A header may hold any number, or none at all; the index holds 64 bits.
    seconds = member.mtime if math.isfinite(member.mtime) else 0
    return FileStamp(member.size, max(-_LATEST_NS, min(_LATEST_NS, int(seconds * 1e9))))


def _judged(member: tarfile.TarInfo, limits: Limits) -> Rejected | None:
    """Why a member is not read, if it is not."""
    if not member.isreg() or member.issparse():
        return Rejected(Reason.CONTAINER_UNSAFE, "the member is a link, a device or sparse")
    if member.size > limits.copied_bytes:
        return Rejected(Reason.TOO_LARGE, f"{member.size} bytes, above {limits.copied_bytes}")
    return None


def _within(member: tarfile.TarInfo, forward: ForwardReader) -> Callable[[int], bytes]:
    """Reads forward, up to the end of a member."""
    end = member.offset_data + member.size
    forward.seek(member.offset_data)

    def read(count: int) -> bytes:
        return forward.read(min(count, end - forward.tell()))

    return read
