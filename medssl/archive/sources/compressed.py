"""What kind of container a file is, by its first bytes, and its unpacked content."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.sources.members import ForwardReader
from medssl.archive.sources.source import FileSource
from medssl.cohort.reasons import Reason

_TAR_MAGIC_AT = 257


class _BorrowedFile(io.RawIOBase):
    """A file that stays open when its reader is closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def _zstd(packed: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(_BorrowedFile(packed), "r"), "zstd")


_UNPACKERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b\x08": lambda packed: gzip.GzipFile(fileobj=packed),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstd,
}


@contextmanager
def open_container(container: Path, limits: Limits) -> Iterator[FileSource]:
    """A zip, tar or compressed file as a source, whatever its name. Raises Rejected."""
    from medssl.archive.sources.tar_container import SingleFileSource, TarSource
    from medssl.archive.sources.zip_container import ZipSource

    try:
        file = container.open("rb")
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"the container cannot be opened ({error.strerror})") from error
    with file:

        def content() -> ForwardReader:
            file.seek(0)
            head = file.read(8)
            file.seek(0)
            unpack = next((unpack for magic, unpack in _UNPACKERS.items() if head.startswith(magic)), None)
            return ForwardReader(file, unpack(file) if unpack else file, limits)

        head = content().read(_TAR_MAGIC_AT + 5)
        if head.startswith(b"PK"):
            yield ZipSource(container, file, limits)
        elif head[_TAR_MAGIC_AT:] == b"ustar":
            yield TarSource(container, content, limits)
        else:
            yield SingleFileSource(container, content, limits)
