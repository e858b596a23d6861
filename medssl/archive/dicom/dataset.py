"""The bounded prefix of a DICOM file to its wanted elements: syntax, byte order, and repairs of what breaks the
standard.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medssl.archive.dicom import tags
from medssl.archive.dicom.elements import Buffer, Malformed, Short, Walker
from medssl.archive.dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ENHANCED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LABEL_MAP,
    LABELS,
    SEGMENTATION,
)
from medssl.archive.dicom.values import Values
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag, Reason

FIRST_BYTES = 8192
_GROWTH = 8
_KNOWN_FIRST_GROUPS = (0x0002, 0x0004, 0x0008)


# The private group of GE that says what part of the signal an image shows: vendor, bytes in which it lies as a rule,
# and its first element whole (its creator), in explicit and implicit little endian.
_GE_VENDOR, _GE_BYTES = b"GE MEDICAL SYSTEMS", 1 << 15
_GE_GROUP = {
    True: b"\x43\x00\x10\x00LO\x0c\x00GEMS_PARM_01",
    False: b"\x43\x00\x10\x00\x0c\x00\x00\x00GEMS_PARM_01",
}


@dataclass(frozen=True)
class Dataset:
    """Wanted elements of one file, and its meta information. pixel_at: where the pixel element begins if it was met,
    else -1.
    """

    values: Values
    meta: Values
    syntax: str
    pixel_at: int
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Wanted:
    """Which elements are kept. last: up to which tag a dataset is walked, by what it says up to group 0028; 0: no
    further.
    """

    values: frozenset[int]
    sequences: frozenset[int]
    last: Callable[[Values], int]


def read_dataset(
    read: Callable[[int], bytes], start: bytes, size: int, limits: Limits, wanted: Wanted | None = None
) -> Dataset:
    """Wanted elements of a file of `size` bytes; `read(n)` gives its first n bytes, `start` is what was read before.

    wanted: those of an image where it is left out. Raises Rejected: BAD_HEADER, HEADER_LIMIT, TOO_DEEP, DEFLATE_LIMIT,
    TRUNCATED.
    """
    wanted = wanted or _IMAGE
    data = read(min(_GE_BYTES, size)) if _GE_VENDOR in start and len(start) < min(_GE_BYTES, size) else start
    while True:
        complete = len(data) >= size
        try:
            return _parse(data, complete=complete, limits=limits, wanted=wanted)
        except Short as short:
            if complete:
                raise Rejected(
                    Reason.TRUNCATED, f"the header goes on behind byte {size}, where the file ends"
                ) from short
            most = most_header_bytes(data, limits)
            if len(data) >= most or short.needed > most:
                raise Rejected(Reason.HEADER_LIMIT, f"the header does not end within {most} bytes") from short
            before, data = data, read(min(max(len(data) * _GROWTH, short.needed + FIRST_BYTES), most, size))
            if len(data) <= len(before):  # a file that shrank, or a member that breaks off
                raise Rejected(Reason.TRUNCATED, f"it ends at byte {len(data)}, {size} were there") from short
        except Malformed as malformed:
            reason = Reason.TOO_DEEP if malformed.too_deep else Reason.BAD_HEADER
            raise Rejected(reason, f"the header has {malformed}") from malformed


def _parse(data: bytes, *, complete: bool, limits: Limits, wanted: Wanted) -> Dataset:
    flags: list[Flag] = []
    if data[128:132] == b"DICM":
        position, meta = _meta(data, 132)
    else:
        flags.append(Flag.F_NO_PREAMBLE)
        position, meta = _meta(data, 0)
    syntax = meta.text(tags.TRANSFER_SYNTAX_UID) or _guessed_syntax(data, position)
    if syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        content = _inflated(data, position, limits)
        return _parse_deflated(content, meta, limits=limits, flags=tuple(flags), wanted=wanted)
    explicit, little = (
        syntax not in (IMPLICIT_VR_LITTLE_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN),
        syntax != EXPLICIT_VR_BIG_ENDIAN,
    )
    try:
        walker = _walk(data, position, explicit=explicit, little=little, complete=complete, wanted=wanted)
    except Malformed as malformed:
        if malformed.too_deep:
            raise
        # Declared explicit but written implicit, or the other way round: seen from converters (ingest.md 1a).
        try:
            walker = _walk(data, position, explicit=not explicit, little=little, complete=complete, wanted=wanted)
        except (Malformed, Short) as second:
            if isinstance(second, Short) and not complete and second.needed <= most_header_bytes(data, limits):
                raise
            # That was no better: the header is neither, and what was wrong first is what is wrong.
            raise malformed from second
        flags.append(Flag.F_TOLERANT_PARSE)
    pixel_at = walker.position if walker.pixel_tag else -1
    return Dataset(Values(walker.found, little), meta, syntax, pixel_at, tuple(flags))


def _parse_deflated(
    content: bytes, meta: Values, *, limits: Limits, flags: tuple[Flag, ...], wanted: Wanted
) -> Dataset:
    try:
        walker = _walk(content, 0, explicit=True, little=True, complete=False, wanted=wanted)
    except Short as short:
        if len(content) >= limits.header_bytes:
            raise Rejected(
                Reason.DEFLATE_LIMIT, f"it inflates to more than {limits.header_bytes} bytes of header"
            ) from short
        raise
    return Dataset(Values(walker.found), meta, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, -1, flags)


def _walk(data: bytes, position: int, *, explicit: bool, little: bool, complete: bool, wanted: Wanted) -> Walker:
    """Elements as far as this kind of object needs them."""
    walker = Walker(data, position, explicit=explicit, little=little, values=wanted.values, sequences=wanted.sequences)
    walker.walk(tags.LAST_OF_IMAGE_GROUPS, complete=complete)
    further = wanted.last(Values(walker.found, little))
    if further == tags.LAST_OF_GE:
        # Found instead of walked to: ten kilobytes of GE's other groups would take as long as all the rest.
        group = data.find(_GE_GROUP[explicit], walker.position)
        if group < 0 or walker.pixel_tag:
            return walker
        walker.position = group
    if further and not walker.pixel_tag:
        walker.walk(further, complete=complete)
    return walker


def _further(values: Values) -> int:
    """The last group of an object that says more behind its image description; 0 where nothing more is needed."""
    sop_class = values.text(tags.SOP_CLASS_UID)
    if sop_class in LABELS:
        return 0  # what else they say is read by label_record.py
    if sop_class in ENHANCED or values.integer(tags.NUMBER_OF_FRAMES) not in (None, 0, 1) or not values.raw(tags.ROWS):
        return tags.LAST_OF_FRAMES
    if values.text(tags.MODALITY) == "PT":
        return tags.LAST_OF_PET
    vendor = values.text(tags.MANUFACTURER).lower()
    if "uih" in vendor or "united imaging" in vendor:
        return tags.LAST_OF_UIH
    if "MOSAIC" in values.words(tags.IMAGE_TYPE):
        return tags.LAST_OF_CSA
    if vendor.startswith("ge ") and values.text(tags.MODALITY) == "MR":
        return tags.LAST_OF_GE
    return 0


_IMAGE = Wanted(tags.VALUES, tags.SEQUENCES, _further)


def _meta(data: Buffer, position: int) -> tuple[int, Values]:
    """Where the dataset begins, and the meta information, empty where there is none."""
    if data[position : position + 2] != b"\x02\x00":
        return position, Values({})
    walker = Walker(data, position, explicit=True, little=True, values=tags.META_ELEMENTS)
    try:
        walker.walk(0x0002FFFF, complete=False)
    except Malformed:
        # The dataset behind it need not be in explicit syntax; within the meta information all is.
        if data[walker.position : walker.position + 2] == b"\x02\x00":
            raise
    return walker.position, Values(walker.found)


def _guessed_syntax(data: bytes, position: int) -> str:
    """Syntax of a dataset without meta information, from the look of its first element."""
    if len(data) < position + 8:
        raise Malformed("no dataset")
    for endian, syntax in (("<", EXPLICIT_VR_LITTLE_ENDIAN), (">", EXPLICIT_VR_BIG_ENDIAN)):
        group, element, vr = struct.unpack_from(endian + "HH2s", data, position)
        if group in _KNOWN_FIRST_GROUPS and element < 0x3000:
            return syntax if vr.isalpha() and vr.isupper() else IMPLICIT_VR_LITTLE_ENDIAN
    raise Malformed("no dataset")


def data_start(data: Buffer) -> int:
    """Where the dataset behind preamble and meta information begins."""
    return _meta(data, 132 if data[128:132] == b"DICM" else 0)[0]


def looks_like_dataset(start: bytes) -> bool:
    """Whether a file without the letters DICM may begin with a dataset."""
    try:
        return bool(_guessed_syntax(start, 0))
    except Malformed:
        return False


def _inflated(data: bytes, position: int, limits: Limits) -> bytes:
    """The deflated dataset behind `position`, as much of it as a header may be long."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(data[position:], limits.header_bytes)
    except zlib.error as error:
        raise Rejected(Reason.TRUNCATED, "its deflated dataset is damaged") from error


def most_header_bytes(data: bytes, limits: Limits) -> int:
    """How long the header of the file that begins with `data` may be; multi-frame objects have long ones."""
    has_frames = any(uid.encode() in data[:FIRST_BYTES] for uid in (*ENHANCED, SEGMENTATION, LABEL_MAP))
    return limits.frames_header_bytes if has_frames else limits.header_bytes


def read_lut(path: str, *, limits: Limits) -> tuple[int, npt.NDArray[np.uint16]]:
    """(first stored value, entries) of the modality lookup table of a file. PS3.3 C.11.1. Raises Rejected."""
    with open(path, "rb") as file:
        start = file.read(FIRST_BYTES)
        size = file.seek(0, 2)

        def read(count: int) -> bytes:
            file.seek(0)
            return file.read(count)

        dataset = read_dataset(read, start, size, limits)
    item = dataset.values.item(tags.MODALITY_LUT_SEQUENCE)
    descriptor = item.shorts(tags.LUT_DESCRIPTOR)
    entries = np.array(item.shorts(tags.LUT_DATA), np.uint16)
    if len(descriptor) != 3 or len(entries) < (descriptor[0] or 65536):
        raise Rejected(Reason.BAD_HEADER, "the modality lookup table is shorter than its descriptor says")
    signed = dataset.values.short(tags.PIXEL_REPRESENTATION) == 1
    first = descriptor[1] - 65536 if signed and descriptor[1] > 32767 else descriptor[1]
    return first, entries[: descriptor[0] or 65536]
