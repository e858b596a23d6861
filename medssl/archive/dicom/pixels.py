"""Stored values of the frames of a DICOM file: native pixels are read at their offset, others decoded by frame."""

import mmap
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.archive.dicom.codecs import decode_frame
from medssl.archive.dicom.dataset import data_start
from medssl.archive.dicom.elements import Buffer, Malformed, Short, Walker
from medssl.archive.dicom.record import Record
from medssl.archive.dicom.uids import (
    CODECS,
    EXPLICIT_VR_BIG_ENDIAN,
    GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

Pixels = npt.NDArray[Any]

_PIXEL_DATA, _LAST = 0x7FE00010, 0x7FE0FFFF
_PIXEL_TAG = b"\xe0\x7f\x10\x00"
_UNDEFINED = 0xFFFFFFFF
_MAX_FRAGMENTS = 200_000


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of a file are stored. The fields are those of its header record."""

    syntax: str
    rows: int
    columns: int
    n_frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @classmethod
    def of(cls, record: Record) -> "PixelFormat":
        """How the pixels of the file with this header record are stored."""
        return cls(*(getattr(record, field.name) for field in fields(cls)))

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, uncompressed."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def big_endian(self) -> bool:
        """Whether native pixels are stored with the most significant byte first."""
        return self.syntax in (EXPLICIT_VR_BIG_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN)


def read_frames(
    path: str, layout: PixelFormat, frames: Iterable[int], *, pixel_at: int, limits: Limits
) -> dict[int, Pixels]:
    """Stored values (rows, columns) of selected frames of a file, masked to the bits stored and sign-extended.

    Args:
        path: The file.
        layout: How its pixels are stored.
        frames: Numbers of the frames to read.
        pixel_at: Byte offset of the pixel element if the header scan reached it, else -1.
        limits: How far deflated pixels may inflate.

    Returns:
        The frames by number.

    Raises:
        Rejected: TRUNCATED, BAD_PIXELS, UNSUPPORTED_SYNTAX, DEFLATE_LIMIT or IO_ERROR.
    """
    numbers = sorted(set(frames))
    codec = CODECS[layout.syntax]
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"the file cannot be opened ({error.strerror})") from error
    try:
        if codec == "native":
            raw = _native(descriptor, layout, numbers, pixel_at)
        elif codec == "deflated":
            raw = _deflated(descriptor, layout, numbers, limits)
        else:
            raw = _encapsulated(descriptor, layout, numbers, pixel_at)
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"the file cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)
    return {number: stored_values(values, layout) for number, values in raw.items()}


def stored_values(values: Pixels, layout: PixelFormat) -> Pixels:
    """Values with their sign, and without overlays or garbage in the bits around the stored ones.

    PS3.5 8.1.1: the value ends at the high bit, and the bits above it have no meaning.
    """
    stored, shift = layout.bits_stored, layout.high_bit + 1 - layout.bits_stored
    unsigned = values.view(f"u{values.dtype.itemsize}")
    if stored == layout.bits_allocated == 8 * values.dtype.itemsize:
        unchanged: Pixels = unsigned.view(f"i{values.dtype.itemsize}") if layout.signed else unsigned
        return unchanged
    # A decoder that knows the precision returns values that need no shift.
    if shift and CODECS[layout.syntax] in ("native", "deflated", "rle"):
        unsigned = unsigned >> shift
    wide = unsigned.astype(f"u{layout.bits_allocated // 8}", copy=False)
    if not layout.signed:
        masked: Pixels = wide & wide.dtype.type((1 << stored) - 1)
        return masked
    spare = layout.bits_allocated - stored
    signed: Pixels = np.right_shift(np.left_shift(wide.view(f"i{wide.dtype.itemsize}"), spare), spare)
    return signed


def _native(descriptor: int, layout: PixelFormat, frames: list[int], pixel_at: int) -> dict[int, Pixels]:
    start = _native_start(descriptor, layout, pixel_at)
    dtype = np.dtype(f"{'>' if layout.big_endian else '<'}u{layout.bits_allocated // 8}")
    swapped = layout.bits_allocated == 8 and layout.big_endian and _in_words(descriptor, start)
    pixels = {}
    for number in frames:
        offset = number * layout.frame_bytes
        if swapped:
            data = _from_words(descriptor, start, offset, layout.frame_bytes)
        else:
            data = os.pread(descriptor, layout.frame_bytes, start + offset)
        if len(data) < layout.frame_bytes:
            raise Rejected(Reason.TRUNCATED, f"frame {number} ends after {len(data)} of {layout.frame_bytes} bytes")
        values = np.frombuffer(data, dtype).reshape(layout.rows, layout.columns)
        pixels[number] = values.astype(dtype.newbyteorder("="), copy=False)
    return pixels


def _in_words(descriptor: int, start: int) -> bool:
    """Whether big endian pixels of 8 bits are packed in 16-bit words (OW), and so swapped in pairs (PS3.5 A.3)."""
    vr = os.pread(descriptor, 2, start - 8)
    if vr not in (b"OW", b"OB"):
        raise Rejected(Reason.UNSUPPORTED_SYNTAX, "the big endian 8-bit pixel element has a VR other than OB and OW")
    return vr == b"OW"


def _from_words(descriptor: int, start: int, offset: int, count: int) -> bytes:
    """`count` bytes from `offset` of pixels swapped in pairs; a frame may begin or end within a pair."""
    begin, end = offset - offset % 2, offset + count + (offset + count) % 2
    stored = np.frombuffer(os.pread(descriptor, end - begin, start + begin), np.uint8)
    pairs = stored[: len(stored) // 2 * 2].reshape(-1, 2)[:, ::-1]
    return pairs.tobytes()[offset - begin :][:count]


def _native_start(descriptor: int, layout: PixelFormat, pixel_at: int) -> int:
    """Byte offset of native pixels."""
    # Three ways, the cheapest first: the offset that the header scan noted; the size of the file minus that of the
    # pixels; a walk through the header. The first two count only if a pixel element with the right length precedes the
    # offset: a file may have trailing elements, and it may have changed.
    size = os.fstat(descriptor).st_size
    expected = layout.frame_bytes * layout.n_frames
    if layout.syntax != EXPLICIT_VR_BIG_ENDIAN:
        implicit = layout.syntax in (IMPLICIT_VR_LITTLE_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN)
        header_bytes = 8 if implicit else 12
        offsets = [pixel_at] if pixel_at >= 0 else [size - padded - header_bytes for padded in (expected, expected + 1)]
        for offset in offsets:
            start = _value_start(os.pread(descriptor, 12, offset) if offset >= 0 else b"", expected)
            if start:
                return offset + start
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        start, length = _pixel_element(data, layout.syntax, pixel_at)
    if length < expected:
        raise Rejected(Reason.TRUNCATED, f"the pixel element holds {length} bytes, {expected} are needed")
    return start


def _value_start(head: bytes, expected: int) -> int:
    """Length of the element header `head` if it is that of a little endian pixel element of `expected` bytes, else 0.

    The element may be one byte longer, for padding.
    """
    if head[:4] != _PIXEL_TAG or len(head) < 12:
        return 0
    lengths = (expected, expected + expected % 2)
    if head[4:6] in (b"OW", b"OB"):
        return 12 if struct.unpack_from("<I", head, 8)[0] in lengths else 0
    return 8 if struct.unpack_from("<I", head, 4)[0] in lengths else 0


def _pixel_element(data: Buffer, syntax: str, pixel_at: int) -> tuple[int, int]:
    """(byte offset, length) of the value of the pixel element."""
    # Walk from the front, in the declared VR encoding and then in the other one (dataset.py tolerates both). The offset
    # of the header scan comes last: for some broken headers pydicom found it, and no walk of ours gets there.
    explicit = syntax not in (IMPLICIT_VR_LITTLE_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN)
    little = syntax != EXPLICIT_VR_BIG_ENDIAN
    for from_front, as_explicit in ((True, explicit), (True, not explicit), (False, explicit)):
        try:
            begin = data_start(data) if from_front else max(pixel_at, 0)
            walker = Walker(data, begin, explicit=as_explicit, little=little)
            walker.walk(_LAST, complete=True)
            if walker.pixel_tag == _PIXEL_DATA:
                return walker.pixel_value()
        except (Malformed, Short):
            continue
    raise Rejected(Reason.TRUNCATED, "the file has no pixel element")


def _deflated(descriptor: int, layout: PixelFormat, frames: list[int], limits: Limits) -> dict[int, Pixels]:
    expected = layout.frame_bytes * layout.n_frames
    max_bytes = limits.header_bytes + expected + 1024
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        compressed = data[data_start(data) :]
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(compressed, max_bytes)
    except zlib.error as error:
        raise Rejected(Reason.TRUNCATED, "its deflated dataset is damaged") from error
    if inflater.unconsumed_tail and len(content) >= max_bytes:
        raise Rejected(Reason.DEFLATE_LIMIT, f"the dataset inflates to more than {max_bytes} bytes")
    walker = Walker(content, 0, explicit=True, little=True)
    try:
        walker.walk(_LAST, complete=True)
    except (Malformed, Short) as error:
        raise Rejected(Reason.TRUNCATED, "its deflated dataset is damaged") from error
    if walker.pixel_tag != _PIXEL_DATA:
        raise Rejected(Reason.TRUNCATED, "the file has no pixel element")
    start, length = walker.pixel_value()
    if length < expected or start + expected > len(content):
        raise Rejected(Reason.TRUNCATED, f"the pixel element holds {length} bytes, {expected} are needed")
    pixels = np.frombuffer(content, f"<u{layout.bits_allocated // 8}", expected * 8 // layout.bits_allocated, start)
    volume = pixels.reshape(layout.n_frames, layout.rows, layout.columns)
    return {number: volume[number] for number in frames}


def _encapsulated(descriptor: int, layout: PixelFormat, frames: list[int], pixel_at: int) -> dict[int, Pixels]:
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        start, length = _pixel_element(data, layout.syntax, pixel_at)
        if length != _UNDEFINED:
            raise Rejected(Reason.BAD_PIXELS, "the compressed pixels are not encapsulated")
        offsets, fragments = _fragments(data, start)
        codec = CODECS[layout.syntax]
        pixels = {}
        for number in frames:
            parts = _fragments_of(number, layout.n_frames, offsets, fragments)
            codestream = b"".join(data[begin:end] for begin, end in parts)
            rows, columns, bits = layout.rows, layout.columns, layout.bits_allocated
            pixels[number] = decode_frame(codestream, codec, rows=rows, columns=columns, bits_allocated=bits)
    return pixels


def _fragments(data: Buffer, position: int) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """(basic offset table, [start, end) of each fragment). PS3.5 annex A.4.

    A missing sequence delimiter is tolerated; a truncated fragment is not.
    """
    first, fragments = position, list[tuple[int, int]]()
    offsets: tuple[int, ...] = ()
    while position + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, position)
        if (group, element) != (0xFFFE, 0xE000):
            break
        begin, end = position + 8, position + 8 + length
        if end > len(data):
            raise Rejected(Reason.TRUNCATED, "the file ends within its compressed pixels")
        if position == first:
            offsets = struct.unpack(f"<{length // 4}I", data[begin : begin + length // 4 * 4])
        else:
            fragments.append((begin, end))
        if len(fragments) > _MAX_FRAGMENTS:
            raise Rejected(Reason.BAD_PIXELS, f"more than {_MAX_FRAGMENTS} fragments")
        position = end
    if not fragments:
        raise Rejected(Reason.TRUNCATED, "the file has no compressed pixels")
    return offsets, fragments


def _fragments_of(
    number: int, n_frames: int, offsets: tuple[int, ...], fragments: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Fragments of one frame: all for a single frame, one each if there are as many as frames, else by offset table."""
    if n_frames == 1:
        return fragments
    if len(fragments) == n_frames:
        return [fragments[number]]
    if len(offsets) != n_frames:
        raise Rejected(Reason.BAD_PIXELS, f"{len(fragments)} fragments for {n_frames} frames, without an offset table")
    base = fragments[0][0] - 8
    begin = base + offsets[number]
    end = base + offsets[number + 1] if number + 1 < n_frames else fragments[-1][1]
    return [part for part in fragments if begin <= part[0] - 8 < end]
