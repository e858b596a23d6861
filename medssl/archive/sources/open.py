"""The source that a path lies in: the one module that knows all kinds of sources."""

from contextlib import AbstractContextManager
from pathlib import Path

from medssl.archive.limits import Limits
from medssl.archive.sources.location import Location, container_of, is_on_disk
from medssl.archive.sources.source import FileSource
from medssl.errors import UsageError

_SMALL_BYTES = 1 << 24


def open_source(path: Path, limits: Limits) -> AbstractContextManager[FileSource]:
    """The source that a path lies in, opened. Raises Rejected, and UsageError where an extra is not installed."""
    container = container_of(path)
    if container is not None:
        from medssl.archive.sources.compressed import open_container

        return open_container(container, limits)
    location = Location.parse(path)
    if location is None:
        raise UsageError(f"{path} is a file on disk. Read it directly.")
    if location.is_dicomweb:
        from medssl.archive.sources.dicomweb import open_server

        return open_server(location, limits)
    from medssl.archive.sources.object_store import open_store

    return open_store(location)


def read_small(path: Path) -> bytes:
    """The content of a small file, wherever it lies. Raises OSError, or Rejected, which is a DataError too."""
    if is_on_disk(path):
        with path.open("rb") as file:
            return file.read(_SMALL_BYTES)
    with open_source(path, Limits()) as source:
        return next(read_head(_SMALL_BYTES) for _, read_head in source.headers([path]))
