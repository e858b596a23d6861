"""Members of a container as files in folders: names that stay inside, each once, no more than the limits allow."""

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
from medssl.archive.sources.location import member_path
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason

# A small container of empty slices may well unpack to a thousand times its size and does no harm: the ratio between
# unpacked and packed bytes counts from this many unpacked bytes on.
MIN_BOMB_BYTES = 2**30
CHUNK_BYTES = 1 << 20

Member = tuple[str, FileStamp | Rejected]  # name in the container, and its stamp or why it is not read


def member_folders(container: Path, members: Iterable[Member], limits: Limits) -> Iterator[Folder]:
    """Members by folder. What `members` raises is raised after the folders of the members before it."""
    folders: dict[Path, tuple[dict[str, FileStamp], dict[str, Rejected]]] = {}
    problem = None
    try:
        for number, (path, entry) in enumerate(with_paths(container, members)):
            if number >= limits.container_members:
                raise Rejected(Reason.CONTAINER_BOMB, f"more than {limits.container_members} members")
            files, rejected = folders.setdefault(path.parent, ({}, {}))
            if isinstance(entry, Rejected):
                rejected[path.name] = entry
            else:
                files[path.name] = entry
    except Rejected as error:
        problem = error
    # What lies before the damage is used; a bomb is hostile as a whole.
    if problem is None or problem.reason is not Reason.CONTAINER_BOMB:
        for path, (files, rejected) in folders.items():
            yield Folder(path, files, rejected=rejected)
    if problem is not None:
        raise problem


def with_paths(container: Path, members: Iterable[Member]) -> Iterator[tuple[Path, FileStamp | Rejected]]:
    """Members with their paths, in the container's order. One with an unsafe name is rejected under its number."""
    taken: set[Path] = set()
    for number, (name, entry) in enumerate(members, start=1):
        parts = _safe_parts(name)
        path = member_path(container, "/".join(parts)) if parts else None
        if path is not None and path not in taken:
            taken.add(path)
            yield path, entry
        else:
            problem = "its name leads out of its container" if path is None else "another member has the same name"
            yield member_path(container, f"member {number}"), Rejected(Reason.CONTAINER_UNSAFE, problem)


def _safe_parts(name: str) -> list[str]:
    """Folders and name of a member; none where they lead out of the container, or cannot be written as a path."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or name[1:3] in (":/", ":\\"):
        return []
    parts = [part for part in parts if part not in ("", ".")]
    return [] if any(part.endswith("::") for part in parts) else parts


def head_reader(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """A function that returns the first n bytes, for growing n, of what can only be read forward."""
    buffer = b""

    def read_head(count: int) -> bytes:
        nonlocal buffer
        while len(buffer) < count and (chunk := read(min(count - len(buffer), CHUNK_BYTES))):
            buffer += chunk
        return buffer[:count]

    return read_head


def chunks(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """A whole member of `size` bytes. Raises Rejected where it ends early."""
    missing = size
    while missing:
        chunk = read(min(missing, CHUNK_BYTES))
        if not chunk:
            raise Rejected(Reason.CONTAINER_BROKEN, f"a member ends {missing} bytes early")
        missing -= len(chunk)
        yield chunk


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise what broken containers make the standard library raise as Rejected."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise Rejected(Reason.CONTAINER_BROKEN, f"it cannot be unpacked ({type(error).__name__})") from error
    except (ValueError, OverflowError, RuntimeError, struct.error) as error:
        raise Rejected(Reason.CONTAINER_BROKEN, "its directory holds impossible values") from error
    except MemoryError as error:
        raise Rejected(Reason.CONTAINER_BOMB, "it needs more memory than a worker has") from error
    except OSError as error:
        # The decompressors' own errors have no number; the system's have one.
        reason = Reason.IO_ERROR if error.errno else Reason.CONTAINER_BROKEN
        raise Rejected(reason, f"it cannot be read ({error.strerror or type(error).__name__})") from error


class ForwardReader:
    """The unpacked content of a container, from front to back: a file that cannot seek backwards.

    Raises Rejected with CONTAINER_BOMB where the content is far larger than the bytes read of the container, or where
    one read asks for more than the name of a member can need.

    Args:
        packed: The container, open in binary mode.
        content: Unpacks it; `packed` itself where it is not compressed.
        limits: Of which `container_ratio` is used.
    """

    def __init__(self, packed: BinaryIO, content: Any, limits: Limits) -> None:
        self._packed, self._content, self._max_ratio = packed, content, limits.container_ratio
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
        if self._position > max(MIN_BOMB_BYTES, self._packed.tell() * self._max_ratio):
            raise Rejected(Reason.CONTAINER_BOMB, f"{self._packed.tell()} bytes unpack to {self._position} and more")
        self.last = b"".join(parts)
        return self.last

    def seek(self, position: int) -> int:
        """Skip forward to a position of the content."""
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
