"""Stored values of the frames of a DICOM file: read at their offset where they are native, else decoded frame by
frame.
"""

import mmap
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.archive.dicom.codecs import decode_frame
from medssl.archive.dicom.dataset import data_start
from medssl.archive.dicom.elements import Buffer, Malformed, Short, Walker
from medssl.archive.dicom.uids import (
    CODECS,
    EXPLICIT_VR_BIG_ENDIAN,
    GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

Values = npt.NDArray[Any]

_PIXEL_DATA, _LAST = 0x7FE00010, 0x7FE0FFFF
_PIXEL_TAG = b"\xe0\x7f\x10\x00"
_UNDEFINED = 0xFFFFFFFF
_MAX_FRAGMENTS = 200_000


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of a file are stored; field by field as in its header record."""

    syntax: str
    rows: int
    columns: int
    n_frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

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
) -> dict[int, Values]:
    """Stored values (rows, columns) of some frames of a file, by frame number.

    pixel_at: where the header scan met the pixel element, or -1. Values are masked to the bits stored and
    sign-extended.
    Raises Rejected: TRUNCATED, BAD_PIXELS, DEFLATE_LIMIT, IO_ERROR.
    """
    wanted = sorted(set(frames))
    codec = CODECS[layout.syntax]
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"it cannot be opened ({error.strerror})") from error
    try:
        if codec == "native":
            raw = _native(descriptor, layout, wanted, pixel_at)
        elif codec == "deflated":
            raw = _deflated(descriptor, layout, wanted, limits)
        else:
            raw = _encapsulated(descriptor, layout, wanted, pixel_at)
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"it cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)
    return {number: stored_values(values, layout) for number, values in raw.items()}


def stored_values(values: Values, layout: PixelFormat) -> Values:
    """Values without what lies in the bits around them (overlays, garbage), with their sign.

    PS3.5 8.1.1: the value ends at the high bit; the bits above it mean nothing.
    """
    stored, shift = layout.bits_stored, layout.high_bit + 1 - layout.bits_stored
    unsigned = values.view(f"u{values.dtype.itemsize}")
    if stored == layout.bits_allocated == 8 * values.dtype.itemsize:
        whole: Values = unsigned.view(f"i{values.dtype.itemsize}") if layout.signed else unsigned
        return whole
    # A decoder that knows the precision gives values that are in place already.
    if shift and CODECS[layout.syntax] in ("native", "deflated", "rle"):
        unsigned = unsigned >> shift
    wide = unsigned.astype(f"u{layout.bits_allocated // 8}", copy=False)
    if not layout.signed:
        masked: Values = wide & wide.dtype.type((1 << stored) - 1)
        return masked
    spare = layout.bits_allocated - stored
    signed: Values = np.right_shift(np.left_shift(wide.view(f"i{wide.dtype.itemsize}"), spare), spare)
    return signed


def _native(descriptor: int, layout: PixelFormat, frames: list[int], pixel_at: int) -> dict[int, Values]:
    start = _native_start(descriptor, layout, pixel_at)
    dtype = np.dtype(f"{'>' if layout.big_endian else '<'}u{layout.bits_allocated // 8}")
    swapped = layout.bits_allocated == 8 and layout.big_endian and _in_words(descriptor, start)
    found = {}
    for number in frames:
        offset = number * layout.frame_bytes
        if swapped:
            data = _from_words(descriptor, start, offset, layout.frame_bytes)
        else:
            data = os.pread(descriptor, layout.frame_bytes, start + offset)
        if len(data) < layout.frame_bytes:
            raise Rejected(Reason.TRUNCATED, f"frame {number} ends after {len(data)} of {layout.frame_bytes} bytes")
        values = np.frombuffer(data, dtype).reshape(layout.rows, layout.columns)
        found[number] = values.astype(dtype.newbyteorder("="), copy=False)
    return found


def _in_words(descriptor: int, start: int) -> bool:
    """Whether big endian pixels of 8 bits lie in words of 16 (OW), and so swapped in pairs (PS3.5 annex A.3)."""
    vr = os.pread(descriptor, 2, start - 8)
    if vr not in (b"OW", b"OB"):
        raise Rejected(
            Reason.UNSUPPORTED_SYNTAX, "big endian pixels of 8 bits that are said to be neither bytes nor words"
        )
    return vr == b"OW"


def _from_words(descriptor: int, start: int, offset: int, count: int) -> bytes:
    """`count` bytes from `offset` on of pixels that lie swapped in pairs; a frame may begin or end within a pair."""
    begin, end = offset - offset % 2, offset + count + (offset + count) % 2
    stored = np.frombuffer(os.pread(descriptor, end - begin, start + begin), np.uint8)
    pairs = stored[: len(stored) // 2 * 2].reshape(-1, 2)[:, ::-1]
    return pairs.tobytes()[offset - begin :][:count]


def _native_start(descriptor: int, layout: PixelFormat, pixel_at: int) -> int:
    """First byte of native pixels: where the header scan said, else counted from the end of the file, else by walking
    there.

    The first two are believed only where the pixel element with the right length lies right before.
    """
    size = os.fstat(descriptor).st_size
    expected = layout.frame_bytes * layout.n_frames
    if layout.syntax != EXPLICIT_VR_BIG_ENDIAN:
        implicit = layout.syntax in (IMPLICIT_VR_LITTLE_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN)
        heads = (
            [pixel_at]
            if pixel_at >= 0
            else [size - padded - (8 if implicit else 12) for padded in (expected, expected + 1)]
        )
        for head in heads:
            start = _value_start(os.pread(descriptor, 12, head) if head >= 0 else b"", expected)
            if start:
                return head + start
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        start, length = _pixel_element(data, layout.syntax, pixel_at)
    if length < expected:
        raise Rejected(Reason.TRUNCATED, f"the pixel element holds {length} bytes, {expected} are needed")
    return start


def _value_start(head: bytes, expected: int) -> int:
    """Length of the header of a little endian pixel element of `expected` bytes (or one more, for padding); 0 if it
    is none.
    """
    if head[:4] != _PIXEL_TAG or len(head) < 12:
        return 0
    lengths = (expected, expected + expected % 2)
    if head[4:6] in (b"OW", b"OB"):
        return 12 if struct.unpack_from("<I", head, 8)[0] in lengths else 0
    return 8 if struct.unpack_from("<I", head, 4)[0] in lengths else 0


def _pixel_element(data: Buffer, syntax: str, pixel_at: int) -> tuple[int, int]:
    """(first byte, length) of the value of the pixel element: by walking there from the front, else where the header
    scan met it, which for some broken headers was pydicom's.
    """
    explicit, little = (
        syntax not in (IMPLICIT_VR_LITTLE_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN),
        syntax != EXPLICIT_VR_BIG_ENDIAN,
    )
    for from_front, as_explicit in ((True, explicit), (True, not explicit), (False, explicit)):
        try:
            begin = data_start(data) if from_front else max(pixel_at, 0)
            walker = Walker(data, begin, explicit=as_explicit, little=little)
            walker.walk(_LAST, complete=True)
            if walker.pixel_tag == _PIXEL_DATA:
                return walker.pixel_value()
        except (Malformed, Short):
            continue
    raise Rejected(Reason.TRUNCATED, "it has no pixel element")


def _deflated(descriptor: int, layout: PixelFormat, frames: list[int], limits: Limits) -> dict[int, Values]:
    expected = layout.frame_bytes * layout.n_frames
    most = limits.header_bytes + expected + 1024
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        compressed = data[data_start(data) :]
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(compressed, most)
    except zlib.error as error:
        raise Rejected(Reason.TRUNCATED, "its deflated dataset is damaged") from error
    if inflater.unconsumed_tail and len(content) >= most:
        raise Rejected(Reason.DEFLATE_LIMIT, f"it inflates to more than {most} bytes")
    walker = Walker(content, 0, explicit=True, little=True)
    try:
        walker.walk(_LAST, complete=True)
    except (Malformed, Short) as error:
        raise Rejected(Reason.TRUNCATED, "its deflated dataset is damaged") from error
    if walker.pixel_tag != _PIXEL_DATA:
        raise Rejected(Reason.TRUNCATED, "it has no pixel element")
    start, length = walker.pixel_value()
    if length < expected or start + expected > len(content):
        raise Rejected(Reason.TRUNCATED, f"the pixel element holds {length} bytes, {expected} are needed")
    pixels = np.frombuffer(content, f"<u{layout.bits_allocated // 8}", expected * 8 // layout.bits_allocated, start)
    volume = pixels.reshape(layout.n_frames, layout.rows, layout.columns)
    return {number: volume[number] for number in frames}


def _encapsulated(descriptor: int, layout: PixelFormat, frames: list[int], pixel_at: int) -> dict[int, Values]:
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        start, length = _pixel_element(data, layout.syntax, pixel_at)
        if length != _UNDEFINED:
            raise Rejected(Reason.BAD_PIXELS, "compressed pixels that are not encapsulated")
        offsets, fragments = _fragments(data, start)
        codec = CODECS[layout.syntax]
        found = {}
        for number in frames:
            parts = _fragments_of(number, layout.n_frames, offsets, fragments)
            codestream = b"".join(data[begin:end] for begin, end in parts)
            found[number] = decode_frame(
                codestream, codec, rows=layout.rows, columns=layout.columns, bits_allocated=layout.bits_allocated
            )
    return found


def _fragments(data: Buffer, position: int) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """(basic offset table, [start, end) of each fragment). PS3.5 annex A.4. A missing end is forgiven, a cut fragment
    is not.
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
        raise Rejected(Reason.TRUNCATED, "it has no compressed pixels")
    return offsets, fragments


def _fragments_of(
    number: int, n_frames: int, offsets: tuple[int, ...], fragments: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Fragments of one frame: all where there is one frame, one each where they are as many, else by the offset
    table.
    """
    if n_frames == 1:
        return fragments
    if len(fragments) == n_frames:
        return [fragments[number]]
    if len(offsets) != n_frames:
        raise Rejected(Reason.BAD_PIXELS, f"{len(fragments)} fragments for {n_frames} frames and no table that tells")
    base = fragments[0][0] - 8
    begin = base + offsets[number]
    end = base + offsets[number + 1] if number + 1 < n_frames else fragments[-1][1]
    return [part for part in fragments if begin <= part[0] - 8 < end]
