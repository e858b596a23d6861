"""Reads files, gzipped or not, and never inflates more than requested."""

import zlib
from pathlib import Path
from typing import BinaryIO

from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

_CHUNK = 1 << 18
# Deflate cannot compress better than 1032:1 (zlib's technical details): a file that promises more is truncated.
_MAX_RATIO = 1032
_SKIP_CHUNK = 1 << 20


class BoundedReader:
    """Reads a file from front to back, through gunzip if it begins with gzip's magic number.

    A gzip file may have several members, as bgzip writes them; garbage after the last one is ignored.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file: BinaryIO = path.open("rb")
            self._size = path.stat().st_size
            magic = self._file.read(3)
            self._file.seek(0)
        except OSError as error:
            raise Rejected(Reason.IO_ERROR, f"the file cannot be opened ({error.strerror})") from error
        if self._size == 0:
            self._file.close()
            raise Rejected(Reason.EMPTY_FILE, "the file is empty")
        self._inflater = zlib.decompressobj(wbits=31) if magic == b"\x1f\x8b\x08" else None
        self._pending = b""

    def __enter__(self) -> "BoundedReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer only at the end of the file. Raises Rejected if the gzip stream is damaged."""
        try:
            if self._inflater is None:
                return self._file.read(count)
            parts, missing = [], count
            while missing and self._inflater and (part := self._inflate(self._inflater, missing)):
                parts.append(part)
                missing -= len(part)
            return b"".join(parts)
        except zlib.error as error:
            raise Rejected(Reason.TRUNCATED, "its gzip stream is damaged") from error
        except OSError as error:
            raise Rejected(Reason.IO_ERROR, f"the file cannot be read ({error.strerror})") from error

    def read_at(self, offset: int, count: int, start: bytes) -> bytearray:
        """`count` bytes from `offset` of the content, whose first bytes `start` have been read already.

        Raises Rejected with TRUNCATED, without allocating if the file is obviously too small.
        """
        max_bytes = self._size * (_MAX_RATIO if self._inflater else 1)
        if offset + count > max_bytes:
            raise Rejected(Reason.TRUNCATED, f"{count} bytes of voxels do not fit a file of {self._size} bytes")
        position = len(start)
        while position < offset:
            skipped = len(self.read(min(offset - position, _SKIP_CHUNK)))
            if not skipped:
                raise Rejected(Reason.TRUNCATED, f"the file ends at byte {position}, before its voxels")
            position += skipped
        content = bytearray(count)
        filled = max(0, min(len(start) - offset, count))
        content[:filled] = start[offset : offset + filled]
        while filled < count:
            part = self.read(min(count - filled, _SKIP_CHUNK))
            if not part:
                raise Rejected(Reason.TRUNCATED, f"the file holds {filled} of {count} bytes of voxels")
            content[filled : filled + len(part)] = part
            filled += len(part)
        return content

    def _inflate(self, inflater: "zlib._Decompress", count: int) -> bytes:
        """Between 1 and `count` bytes; b"" at the end of the last member."""
        while True:
            if inflater.eof:
                following = inflater.unused_data or self._file.read(_CHUNK)
                if not following.startswith(b"\x1f\x8b\x08"):
                    return b""
                self._inflater = inflater = zlib.decompressobj(wbits=31)
                self._pending = following
            compressed = self._pending or inflater.unconsumed_tail or self._file.read(_CHUNK)
            self._pending = b""
            part = inflater.decompress(compressed, count)
            if part or (not compressed and not inflater.eof):
                return part
