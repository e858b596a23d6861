"""S3 and every other object store that fsspec knows, as a source.

Each store takes credentials from its own environment variables and files; medssl neither reads nor writes them.
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
from medssl.archive.sources.location import Location
from medssl.archive.sources.network import T, with_retries
from medssl.archive.sources.source import FileContent, HeadReader
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason
from medssl.errors import DataError, UsageError

# Concurrent requests: a store answers each after some 30 ms, and many at a time.
_REQUESTS = 32
_CHUNK_BYTES = 1 << 23
# What changes with the content, in the words of the stores.
_DIGESTS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "checksum")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


@contextmanager
def open_store(location: Location) -> Iterator["ObjectStore"]:
    """The store at a location. Raises UsageError for an unknown scheme, or where its package is not installed."""
    try:
        from fsspec.core import url_to_fs

        filesystem, _ = url_to_fs(location.url)
    except ImportError as error:
        # fsspec names the package that the store needs; those of S3 and fsspec itself come with medssl[remote].
        raise UsageError(
            f"{location.scheme}:// needs a package that is not installed: {error}. For s3:// install it with: "
            "pip install 'medssl[remote]'; other stores need their own package as well."
        ) from error
    except ValueError as error:
        raise UsageError(f"{location.scheme}:// is not a known kind of source. See docs/archive.md.") from error
    filesystem.invalidate_cache()  # a worker lives long, and the store changes meanwhile
    yield ObjectStore(filesystem, location)


class ObjectStore:
    """Objects under one prefix. An object counts as unchanged by its size and its digest, or time where it has none."""

    def __init__(self, filesystem: Any, prefix: Location) -> None:
        self._fs, self._prefix = filesystem, prefix

    def folders(self) -> Iterator[Folder]:
        """See `FileSource`. Raises DataError when the prefix is empty or the store does not answer."""
        empty = True
        pending = [self._key(self._prefix.path)]
        while pending:
            key = pending.pop()
            entries = self._request(partial(self._fs.ls, key, detail=True))
            folder, subfolders = _folder(self._path(key), entries)
            pending.extend(sorted(subfolders, reverse=True))
            empty = empty and not folder.files
            yield folder
        if empty:
            raise DataError(f"{self._prefix.url} holds no object. Check the bucket and the prefix.")

    def headers(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """See `FileSource`: the first bytes of many objects at a time."""
        for first in range(0, len(paths), _REQUESTS):
            batch = paths[first : first + _REQUESTS]
            keys = [self._key(path) for path in batch]
            for path, key, head in zip(batch, keys, self._first_bytes(keys), strict=True):
                yield path, self._head_reader(key, bytes(head) if isinstance(head, (bytes, bytearray)) else None)

    def contents(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """See `FileSource`: small objects many at a time, large ones chunk by chunk."""
        for first in range(0, len(paths), _REQUESTS):
            batch = paths[first : first + _REQUESTS]
            with ThreadPoolExecutor(_REQUESTS) as pool:
                stamps = list(pool.map(self._stamp, batch))
                contents = pool.map(self._small_content, batch, stamps)
                for path, stamp, content in zip(batch, stamps, contents, strict=True):
                    chunks = self._chunks(path, stamp.size) if content is None else iter([content])
                    yield FileContent(path, stamp, chunks)

    def _first_bytes(self, keys: list[str]) -> list[Any]:
        """The first bytes of some objects, or the error of each. Objects with an error are asked for again alone."""
        try:
            heads: list[Any] = self._fs.cat_ranges(keys, 0, FIRST_BYTES, on_error="return")
        except Exception as error:  # every kind of store has its own errors
            return [error] * len(keys)
        return heads

    def _head_reader(self, key: str, head: bytes | None) -> HeadReader:
        def read_head(count: int) -> bytes:
            nonlocal head
            if head is None or (count > len(head) and len(head) >= FIRST_BYTES):
                head = self._request(lambda: bytes(self._fs.cat_file(key, start=0, end=max(count, FIRST_BYTES))))
            return head[:count]

        return read_head

    def _stamp(self, path: Path) -> FileStamp:
        return object_stamp(self._request(lambda: self._fs.info(self._key(path))))

    def _small_content(self, path: Path, stamp: FileStamp) -> bytes | None:
        return self._chunk(path, 0, stamp.size) if stamp.size <= _CHUNK_BYTES else None

    def _chunks(self, path: Path, size: int) -> Iterator[bytes]:
        for start in range(0, size, _CHUNK_BYTES):
            yield self._chunk(path, start, min(start + _CHUNK_BYTES, size))

    def _chunk(self, path: Path, start: int, end: int) -> bytes:
        chunk = self._request(lambda: bytes(self._fs.cat_file(self._key(path), start=start, end=end)))
        if len(chunk) != end - start:
            raise Rejected(Reason.IN_FLUX, f"the object gave {len(chunk)} of {end - start} bytes")
        return chunk

    def _request(self, request: Callable[[], T]) -> T:
        bucket = self._prefix.root

        def list_bucket() -> object:
            return self._fs.ls(self._key(bucket.path), detail=False, refresh=True)

        return with_retries(request, ping=list_bucket, server=bucket.url)

    def _key(self, path: Path) -> str:
        return str(self._fs._strip_protocol(Location.of(path).url))

    def _path(self, key: str) -> Path:
        """The path of a key. Every key of a listing begins with the prefix, in the form that the store gives it."""
        return self._prefix.path / key.removeprefix(self._key(self._prefix.path)).strip("/")


def object_stamp(info: Mapping[str, Any]) -> FileStamp:
    """By what an object counts as unchanged, from the store's description of it."""
    size = int(info["size"] or 0)
    digest = next((info[name] for name in _DIGESTS if info.get(name)), None)
    if digest is not None:
        number = hashlib.blake2b(str(digest).encode(), digest_size=7).digest()
        return FileStamp(size, int.from_bytes(number, "big"))
    time = next((info[name] for name in _TIMES if info.get(name)), 0)
    seconds = time.timestamp() if isinstance(time, datetime) else float(time)
    return FileStamp(size, int(seconds * 1e9))


def _folder(path: Path, entries: Sequence[Mapping[str, Any]]) -> tuple[Folder, list[str]]:
    """A folder, and the keys of those below it. A key that cannot be written as a path is rejected."""
    files: dict[str, FileStamp] = {}
    rejected: dict[str, Rejected] = {}
    subfolders = []
    for number, info in enumerate(sorted(entries, key=lambda info: str(info["name"]))):
        key = str(info["name"])
        name = key.rsplit("/", 1)[-1]
        if info["type"] == "directory":
            subfolders.append(key.rstrip("/"))
        elif name in ("", ".", "..") or "//" in key:
            # Consoles make an empty object for a folder: it is passed over.
            if info["size"]:
                problem = Rejected(Reason.CONTAINER_UNSAFE, "its key cannot be written as a path")
                rejected[f"object {number}"] = problem
        else:
            files[name] = object_stamp(info)
    return Folder(path, files, rejected=rejected), subfolders
