"""S3 and every other object store that fsspec knows, as a source. Credentials are the store's own business: its
environment variables and files.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from medssl.archive.dicom.dataset import FIRST_BYTES
from medssl.archive.rejection import Rejected
from medssl.archive.sources.network import T, with_retries
from medssl.archive.sources.source import FileContent, HeadReader, url_of
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason
from medssl.errors import DataError, UsageError

# Requests that are under way at a time: a store answers each after some 30 ms, and many at once.
_AT_ONCE = 32
_PIECE = 1 << 23
# What changes with the content, in the words of the stores.
_DIGESTS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "checksum")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


@contextmanager
def open_store(path: Path) -> Iterator["ObjectStore"]:
    """The store that a place lies in. Raises UsageError when the place has no known store, or its extra is missing."""
    try:
        from fsspec.core import url_to_fs

        filesystem, _ = url_to_fs(url_of(path))
    except ImportError as error:
        # fsspec says which package a store asks for; that of S3 and fsspec itself come with medssl.
        raise UsageError(
            f"{path.parts[0]}// needs a package that is not installed: {error}. For s3:// install it with: "
            "pip install 'medssl[remote]'; other stores need their own package beside that."
        ) from error
    except ValueError as error:
        raise UsageError(f"{path.parts[0]}// is no source that is known. See docs/archive.md.") from error
    filesystem.invalidate_cache()  # a worker lives long, and the store changes meanwhile
    yield ObjectStore(filesystem, path)


class ObjectStore:
    """Objects under one prefix. An object is recognised as unchanged by its size and digest, else its time."""

    def __init__(self, filesystem: Any, root: Path) -> None:
        self._fs, self._root = filesystem, root

    def folders(self) -> Iterator[Folder]:
        """As `Source`. Raises DataError when nothing lies there or the store does not answer."""
        empty = True
        pending = [self._key(self._root)]
        while pending:
            key = pending.pop()
            found = self._ask(partial(self._fs.ls, key, detail=True))
            folder, below = _folder(self._place(key), found)
            pending.extend(sorted(below, reverse=True))
            empty = empty and not folder.files
            yield folder
        if empty:
            raise DataError(f"{url_of(self._root)} holds no object. Check the bucket and the prefix.")

    def starts(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """As `Source`: the first bytes of many at once."""
        for first in range(0, len(paths), _AT_ONCE):
            batch = paths[first : first + _AT_ONCE]
            keys = [self._key(path) for path in batch]
            found = self._first_bytes(keys)
            for path, key, start in zip(batch, keys, found, strict=True):
                yield path, self._start(key, bytes(start) if isinstance(start, (bytes, bytearray)) else None)

    def copies(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """As `Source`: small objects many at once, large ones piece by piece."""
        for first in range(0, len(paths), _AT_ONCE):
            batch = paths[first : first + _AT_ONCE]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                stamps = list(pool.map(self._stamp, batch))
                small = [stamp.size <= _PIECE for stamp in stamps]
                whole = pool.map(lambda one: self._piece(one[0], 0, one[1].size) if one[2] else b"",
                                 zip(batch, stamps, small, strict=True))  # fmt: skip
                for path, stamp, is_small, content in zip(batch, stamps, small, whole, strict=True):
                    yield FileContent(path, stamp, iter([content]) if is_small else self._pieces(path, stamp.size))

    def _first_bytes(self, keys: list[str]) -> list[Any]:
        """First bytes of some objects, or what went wrong with each; those are asked for again, one by one."""
        try:
            found: list[Any] = self._fs.cat_ranges(keys, 0, FIRST_BYTES, on_error="return")
        except Exception as error:  # every kind of store has errors of its own
            return [error] * len(keys)
        return found

    def _start(self, key: str, known: bytes | None) -> HeadReader:
        def read(count: int) -> bytes:
            nonlocal known
            if known is None or (count > len(known) and len(known) >= FIRST_BYTES):
                known = self._ask(lambda: bytes(self._fs.cat_file(key, start=0, end=max(count, FIRST_BYTES))))
            return known[:count]

        return read

    def _stamp(self, path: Path) -> FileStamp:
        return stamp_of(self._ask(lambda: self._fs.info(self._key(path))))

    def _pieces(self, path: Path, size: int) -> Iterator[bytes]:
        for begin in range(0, size, _PIECE):
            yield self._piece(path, begin, min(begin + _PIECE, size))

    def _piece(self, path: Path, begin: int, end: int) -> bytes:
        piece = self._ask(lambda: bytes(self._fs.cat_file(self._key(path), start=begin, end=end)))
        if len(piece) != end - begin:
            raise Rejected(Reason.IN_FLUX, f"the object gave {len(piece)} of {end - begin} bytes")
        return piece

    def _ask(self, call: Callable[[], T]) -> T:
        bucket = Path(*self._root.parts[:2])

        def alive() -> object:
            return self._fs.ls(self._key(bucket), detail=False, refresh=True)

        return with_retries(call, alive=alive, server=url_of(bucket))

    def _key(self, path: Path) -> str:
        return str(self._fs._strip_protocol(url_of(path)))

    def _place(self, key: str) -> Path:
        """The place of a key. Every key of a listing begins with the root's, whatever the store puts before it."""
        below = key.removeprefix(self._key(self._root)).strip("/")
        return Path(self._root, below)


def stamp_of(info: Mapping[str, Any]) -> FileStamp:
    """How an object is recognised as unchanged."""
    digest = next((info[name] for name in _DIGESTS if info.get(name)), None)
    if digest is not None:
        number = hashlib.blake2b(str(digest).encode(), digest_size=7).digest()
        return FileStamp(int(info["size"] or 0), int.from_bytes(number, "big"))
    time = next((info[name] for name in _TIMES if info.get(name)), 0)
    seconds = time.timestamp() if isinstance(time, datetime) else float(time)
    return FileStamp(int(info["size"] or 0), int(seconds * 1e9))


def _folder(place: Path, found: Sequence[Mapping[str, Any]]) -> tuple[Folder, list[str]]:
    """A folder, and the keys of those below it. A key that cannot be written as a path is refused."""
    files: dict[str, FileStamp] = {}
    refused: dict[str, Rejected] = {}
    below = []
    for number, info in enumerate(sorted(found, key=lambda one: str(one["name"]))):
        key = str(info["name"])
        name = key.rsplit("/", 1)[-1]
        if info["type"] == "directory":
            below.append(key.rstrip("/"))
        elif name in ("", ".", "..") or "//" in key:
            # An empty object that stands for a folder, as consoles make them, is nothing to speak of.
            if info["size"]:
                refused[f"object {number}"] = Rejected(Reason.CONTAINER_UNSAFE, "its key cannot be written as a path")
        else:
            files[name] = stamp_of(info)
    return Folder(place, files, refused=refused), below
