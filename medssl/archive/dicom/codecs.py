"""Decodes compressed frames to stored values, after a check of the codestream's own header.

Only imagecodecs (BSD) decodes. pydicom's plugins are never called, so an installed python-gdcm cannot abort the
process. Decoders are still C code: they run in workers that may crash.
"""

import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.archive.dicom.uids import Codec
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

Pixels = npt.NDArray[Any]

_MAX_RATIO = 1000
_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOF_JPEG_LS = 0xF7
_LOSSLESS = 0xC3


def decode_frame(data: bytes, codec: Codec, *, rows: int, columns: int, bits_allocated: int) -> Pixels:
    """Stored values (rows, columns) of one compressed frame, as integers of `bits_allocated`.

    Raises Rejected with BAD_PIXELS if the codestream is damaged or its size differs from the header's.
    """
    if rows * columns * bits_allocated // 8 > max(len(data), 64) * _MAX_RATIO:
        raise Rejected(Reason.BAD_PIXELS, f"{len(data)} compressed bytes cannot hold {columns} x {rows} pixels")
    size = _SIZES[codec](data) if codec in _SIZES else (rows, columns, 1)
    if size != (rows, columns, 1):
        raise Rejected(
            Reason.BAD_PIXELS,
            f"the codestream holds {size[1]} x {size[0]} pixels of {size[2]} components, the header declares "
            f"{columns} x {rows}",
        )
    try:
        values = _DECODERS[codec](data, rows, columns, bits_allocated)
    except MemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, OverflowError) as error:  # imagecodecs: RuntimeError
        raise Rejected(Reason.BAD_PIXELS, f"the {codec} codestream cannot be decoded") from error
    if values.shape != (rows, columns) or values.dtype.kind not in "iu":
        raise Rejected(Reason.BAD_PIXELS, f"the {codec} codestream decodes to {values.dtype} of shape {values.shape}")
    return values


def _rle(data: bytes, rows: int, columns: int, bits_allocated: int) -> Pixels:
    """PS3.5 annex G: a header of 64 bytes, then one packed segment for each byte of a pixel, most significant first."""
    import imagecodecs

    n_bytes = bits_allocated // 8
    if len(data) < 64 or struct.unpack_from("<I", data)[0] != n_bytes:
        raise ValueError("the number of segments differs from the bytes per pixel")
    offsets = [*struct.unpack_from(f"<{n_bytes}I", data, 4), len(data)]
    if offsets[0] < 64 or any(a > b for a, b in pairwise(offsets)):
        raise ValueError("segments are out of order")
    planes = np.empty((rows * columns, n_bytes), np.uint8)
    for index in range(n_bytes):
        segment = imagecodecs.packbits_decode(data[offsets[index] : offsets[index + 1]], out=rows * columns + 2)
        plane = np.frombuffer(segment, np.uint8)
        if len(plane) < rows * columns:
            raise ValueError("a segment is too short")
        planes[:, n_bytes - 1 - index] = plane[: rows * columns]
    return planes.view(f"<u{n_bytes}").reshape(rows, columns)


def _jpeg(data: bytes, rows: int, columns: int, bits_allocated: int) -> Pixels:
    import imagecodecs

    try:
        return np.asarray(imagecodecs.jpeg8_decode(data))
    except imagecodecs.Jpeg8Error:
        if _start_of_frame(data)[0] != _LOSSLESS:
            raise
        return np.asarray(imagecodecs.jpegsof3_decode(data))


def _jpegls(data: bytes, rows: int, columns: int, bits_allocated: int) -> Pixels:
    import imagecodecs

    return np.asarray(imagecodecs.jpegls_decode(data))


def _jpeg2000(data: bytes, rows: int, columns: int, bits_allocated: int) -> Pixels:
    import imagecodecs

    return np.asarray(imagecodecs.jpeg2k_decode(data, planar=False))


def _htj2k(data: bytes, rows: int, columns: int, bits_allocated: int) -> Pixels:
    import imagecodecs

    return np.asarray(imagecodecs.htj2k_decode(data))


def _jpeg_size(data: bytes) -> tuple[int, int, int]:
    return _start_of_frame(data)[1]


def _start_of_frame(data: bytes) -> tuple[int, tuple[int, int, int]]:
    """(marker, (rows, columns, components)) of a JPEG or JPEG-LS codestream. ISO 10918-1 B.2.2, ISO 14495-1 C.2.2."""
    position = 2
    if data[:2] != b"\xff\xd8":
        raise Rejected(Reason.BAD_PIXELS, "the frame does not begin with a JPEG codestream")
    while position + 9 < len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _SOF_MARKERS or marker == _SOF_JPEG_LS:
            rows, columns, components = struct.unpack_from(">HHB", data, position + 5)
            return marker, (rows, columns, components)
        position += 2 + int(struct.unpack_from(">H", data, position + 2)[0])
    raise Rejected(Reason.BAD_PIXELS, "the JPEG codestream has no frame header")


def _jpeg2000_size(data: bytes) -> tuple[int, int, int]:
    """(rows, columns, components) of the SIZ marker, ISO 15444-1 A.5.1; a JP2 file has boxes before it."""
    start = 0 if data[:4] == b"\xff\x4f\xff\x51" else data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(data) < start + 42:
        raise Rejected(Reason.BAD_PIXELS, "the frame holds no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    tile_width, tile_height = struct.unpack_from(">2I", data, start + 24)
    (components,) = struct.unpack_from(">H", data, start + 40)
    # A codestream with as many tiles as pixels would keep a decoder busy for hours.
    if not tile_width or not tile_height or (right // tile_width + 1) * (bottom // tile_height + 1) > 65535:
        raise Rejected(Reason.BAD_PIXELS, "the JPEG 2000 codestream declares no tile size or more than 65535 tiles")
    return bottom - top, right - left, components


_SIZES: dict[Codec, Callable[[bytes], tuple[int, int, int]]] = {
    "jpeg": _jpeg_size,
    "jpegls": _jpeg_size,
    "jpeg2000": _jpeg2000_size,
    "htj2k": _jpeg2000_size,
}
_DECODERS: dict[Codec, Callable[[bytes, int, int, int], Pixels]] = {
    "rle": _rle,
    "jpeg": _jpeg,
    "jpegls": _jpegls,
    "jpeg2000": _jpeg2000,
    "htj2k": _htj2k,
}
