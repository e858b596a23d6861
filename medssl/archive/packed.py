"""Which kind of archive a file is, by its first bytes, and its content in one direction: forward."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from medssl.archive.limits import Limits
from medssl.archive.members import HARMLESS_BYTES, PIECE, damage
from medssl.archive.places import Source
from medssl.archive.reasons import Reason
from medssl.archive.rejection import Rejected

_TAR_MAGIC_AT = 257


class Forward:
    """The content of a packed file from front to back, like a file that cannot turn round.

    Raises Rejected: ARCHIVE_BOMB where it has unpacked to far more than was read of it, or where one read asks for
    more than a member's name can need.
    """

    def __init__(self, packed: BinaryIO, content: Any, limits: Limits) -> None:
        self._packed, self._content, self._ratio = packed, content, limits.archive_ratio
        self._position = 0
        self.last = b""

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end."""
        if count > PIECE:
            raise Rejected(Reason.ARCHIVE_BOMB, f"a header of {count} bytes")
        parts = []
        while count:
            with damage():
                part = self._content.read(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
            self._position += len(part)
        if self._position > max(HARMLESS_BYTES, self._packed.tell() * self._ratio):
            raise Rejected(Reason.ARCHIVE_BOMB, f"{self._packed.tell()} bytes unpack to {self._position} and more")
        self.last = b"".join(parts)
        return self.last

    def seek(self, position: int) -> int:
        """Go on to a place further down."""
        if position < self._position:
            raise Rejected(Reason.ARCHIVE_BROKEN, "it points backwards")
        if self._content is self._packed:
            self._position = self._packed.seek(position)
        while self._position < position and self.read(min(position - self._position, PIECE)):
            pass
        return self._position

    def tell(self) -> int:
        """Bytes of content so far."""
        return self._position


class _Lent(io.RawIOBase):
    """A file that stays open when its reader is closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def _zstd(packed: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(_Lent(packed), "r"), "zstd")


_OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b\x08": lambda packed: gzip.GzipFile(fileobj=packed),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstd,
}


@contextmanager
def open_archive(archive: Path, limits: Limits) -> Iterator[Source]:
    """An archive as a source, whatever it is called. Raises Rejected."""
    from medssl.archive.tar_source import SingleSource, TarSource
    from medssl.archive.zip_source import ZipSource

    try:
        file = archive.open("rb")
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"the archive cannot be opened ({error.strerror})") from error
    with file:

        def forward() -> Forward:
            file.seek(0)
            start = file.read(8)
            file.seek(0)
            opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
            return Forward(file, opener(file) if opener else file, limits)

        start = forward().read(_TAR_MAGIC_AT + 5)
        if start.startswith(b"PK"):
            yield ZipSource(archive, file, limits)
        elif start[_TAR_MAGIC_AT:] == b"ustar":
            yield TarSource(archive, forward, limits)
        else:
            yield SingleSource(archive, forward, limits)
