"""Members of an archive as files in folders: names that stay inside, each once, no more than the limits allow."""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.sources.source import member_path
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason

# A small archive of empty slices may well unpack to a thousand times its size, and harms nobody.
MIN_BOMB_BYTES = 2**30
CHUNK_BYTES = 1 << 20


def member_folders(
    archive: Path, members: Iterable[tuple[str, FileStamp | Rejected]], limits: Limits
) -> Iterator[Folder]:
    """Members by folder. What `members` raises is raised behind the folders of those that came before."""
    folders: dict[Path, tuple[dict[str, FileStamp], dict[str, Rejected]]] = {}
    problem = None
    try:
        for number, (place, found) in enumerate(with_paths(archive, members)):
            if number >= limits.container_members:
                raise Rejected(Reason.CONTAINER_BOMB, f"more than {limits.container_members} members")
            files, refused = folders.setdefault(place.parent, ({}, {}))
            if isinstance(found, Rejected):
                refused[place.name] = found
            else:
                files[place.name] = found
    except Rejected as rejected:
        problem = rejected
    if problem is None or problem.reason is not Reason.CONTAINER_BOMB:
        for path, (files, refused) in folders.items():
            yield Folder(path, files, refused=refused)
    if problem is not None:
        raise problem


def with_paths(
    archive: Path, members: Iterable[tuple[str, FileStamp | Rejected]]
) -> Iterator[tuple[Path, FileStamp | Rejected]]:
    """Members with their places, in the archive's order. One whose name cannot be kept is refused under its number."""
    seen: set[Path] = set()
    for number, (name, found) in enumerate(members, start=1):
        parts = _parts(name)
        place = member_path(archive, "/".join(parts or ["."]))
        if parts is None:
            found = Rejected(Reason.CONTAINER_UNSAFE, "its name leads out of the archive")
        elif place in seen:
            found = Rejected(Reason.CONTAINER_UNSAFE, "another member has the same name")
        else:
            seen.add(place)
            yield place, found
            continue
        yield member_path(archive, f"member {number}"), found


def _parts(name: str) -> list[str] | None:
    """Folders and name of a member; None where they lead out, or cannot be written as a path."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or name[1:3] in (":/", ":\\"):
        return None
    kept = [part for part in parts if part not in ("", ".")]
    if not kept or any(part.endswith("::") for part in kept):
        return None
    return kept


def head_reader(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """First n bytes of what can only be read forward, for growing n."""
    known = b""

    def start(count: int) -> bytes:
        nonlocal known
        while len(known) < count and (part := read(min(count - len(known), CHUNK_BYTES))):
            known += part
        return known[:count]

    return start


def chunks(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """A whole member of `size` bytes. Raises Rejected where it ends before."""
    left = size
    while left:
        part = read(min(left, CHUNK_BYTES))
        if not part:
            raise Rejected(Reason.CONTAINER_BROKEN, f"a member ends {left} bytes early")
        left -= len(part)
        yield part


@contextmanager
def translated_errors() -> Iterator[None]:
    """What broken archives make the standard library raise, as Rejected."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise Rejected(Reason.CONTAINER_BROKEN, f"it cannot be unpacked ({type(error).__name__})") from error
    except (ValueError, OverflowError, RuntimeError, struct.error) as error:
        raise Rejected(Reason.CONTAINER_BROKEN, "its directory makes no sense") from error
    except MemoryError as error:
        raise Rejected(Reason.CONTAINER_BOMB, "it needs more memory than a worker has") from error
    except OSError as error:
        # Of the decompressors' own errors, which have no number; the system's have one.
        reason = Reason.IO_ERROR if error.errno else Reason.CONTAINER_BROKEN
        raise Rejected(reason, f"it cannot be read ({error.strerror or type(error).__name__})") from error


class ForwardReader:
    """The content of a packed file from front to back, like a file that cannot turn round.

    Raises Rejected: CONTAINER_BOMB where it has unpacked to far more than was read of it, or where one read asks for
    more than a member's name can need.
    """

    def __init__(self, packed: BinaryIO, content: Any, limits: Limits) -> None:
        self._packed, self._content, self._ratio = packed, content, limits.container_ratio
        self._position = 0
        self.last = b""

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end."""
        if count > CHUNK_BYTES:
            raise Rejected(Reason.CONTAINER_BOMB, f"a header of {count} bytes")
        parts = []
        while count:
            with translated_errors():
                part = self._content.read(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
            self._position += len(part)
        if self._position > max(MIN_BOMB_BYTES, self._packed.tell() * self._ratio):
            raise Rejected(Reason.CONTAINER_BOMB, f"{self._packed.tell()} bytes unpack to {self._position} and more")
        self.last = b"".join(parts)
        return self.last

    def seek(self, position: int) -> int:
        """Go on to a place further down."""
        if position < self._position:
            raise Rejected(Reason.CONTAINER_BROKEN, "it points backwards")
        if self._content is self._packed:
            self._position = self._packed.seek(position)
        while self._position < position and self.read(min(position - self._position, CHUNK_BYTES)):
            pass
        return self._position

    def tell(self) -> int:
        """Bytes of content so far."""
        return self._position
