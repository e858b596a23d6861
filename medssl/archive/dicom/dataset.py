"""Reads the selected elements of a DICOM file from a bounded prefix of it, and tolerates common breaches of PS3.5."""

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
from medssl.archive.dicom.values import ElementValues
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag, Reason

FIRST_BYTES = 8192
_GROWTH = 8
_FIRST_GROUPS = (0x0002, 0x0004, 0x0008)

# GE's private group with the part of the signal that an image shows: how its vendor is spelt, the prefix of a file that
# usually holds it, and its first element (the private creator) in explicit and implicit VR little endian.
_GE_VENDOR, _GE_BYTES = b"GE MEDICAL SYSTEMS", 1 << 15
_GE_GROUP = {True: b"\x43\x00\x10\x00LO\x0c\x00GEMS_PARM_01", False: b"\x43\x00\x10\x00\x0c\x00\x00\x00GEMS_PARM_01"}


@dataclass(frozen=True)
class Dataset:
    """Selected elements of one file.

    Attributes:
        values: Elements of the dataset.
        meta: Elements of the file meta information; empty if the file has none.
        syntax: UID of the transfer syntax.
        pixel_at: Byte offset of the pixel element, or -1 if the parser did not reach it.
        flags: What was tolerated.
    """

    values: ElementValues
    meta: ElementValues
    syntax: str
    pixel_at: int
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class ElementSelection:
    """Which elements of a dataset are kept.

    Attributes:
        value_tags: Tags whose value is kept.
        sequence_tags: Tags whose items are kept.
        last_tag: From the elements up to group 0028 to the last tag to read; 0 reads no further.
    """

    value_tags: frozenset[int]
    sequence_tags: frozenset[int]
    last_tag: Callable[[ElementValues], int]


def read_dataset(
    read: Callable[[int], bytes], start: bytes, size: int, limits: Limits, selection: ElementSelection | None = None
) -> Dataset:
    """Selected elements of a file.

    Args:
        read: `read(n)` returns the first n bytes of the file.
        start: First bytes of the file, already read.
        size: Bytes of the file.
        limits: How much of the file may be read for its header.
        selection: Elements to keep; those of an image by default.

    Raises:
        Rejected: BAD_HEADER, HEADER_LIMIT, TOO_DEEP, DEFLATE_LIMIT or TRUNCATED.
    """
    selection = selection or _IMAGE_ELEMENTS
    data = read(min(_GE_BYTES, size)) if _GE_VENDOR in start and len(start) < min(_GE_BYTES, size) else start
    while True:
        complete = len(data) >= size
        try:
            return _parse(data, complete=complete, limits=limits, selection=selection)
        except Short as short:
            if complete:
                raise Rejected(
                    Reason.TRUNCATED, f"the header continues past byte {size}, where the file ends"
                ) from short
            max_bytes = max_header_bytes(data, limits)
            if len(data) >= max_bytes or short.needed > max_bytes:
                raise Rejected(Reason.HEADER_LIMIT, f"the header does not end within {max_bytes} bytes") from short
            before, data = data, read(min(max(len(data) * _GROWTH, short.needed + FIRST_BYTES), max_bytes, size))
            if len(data) <= len(before):  # the file shrank, or a container's member is cut off
                raise Rejected(Reason.TRUNCATED, f"the file ends at byte {len(data)} of {size}") from short
        except Malformed as malformed:
            reason = Reason.TOO_DEEP if malformed.too_deep else Reason.BAD_HEADER
            raise Rejected(reason, f"the header has {malformed}") from malformed


def read_dataset_file(path: str, limits: Limits, selection: ElementSelection | None = None) -> Dataset:
    """As `read_dataset`, of a file on disk. Raises OSError too."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)

        def read(count: int) -> bytes:
            file.seek(0)
            return file.read(count)

        return read_dataset(read, read(FIRST_BYTES), size, limits, selection)


def _parse(data: bytes, *, complete: bool, limits: Limits, selection: ElementSelection) -> Dataset:
    flags: list[Flag] = []
    if data[128:132] == b"DICM":
        position, meta = _meta(data, 132)
    else:
        flags.append(Flag.F_NO_PREAMBLE)
        position, meta = _meta(data, 0)
    syntax = meta.text(tags.TRANSFER_SYNTAX_UID) or _guess_syntax(data, position)
    if syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        content = _inflated(data, position, limits)
        return _parse_deflated(content, meta, limits=limits, flags=tuple(flags), selection=selection)
    explicit = syntax not in (IMPLICIT_VR_LITTLE_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN)
    little = syntax != EXPLICIT_VR_BIG_ENDIAN
    try:
        walker = _walk(data, position, explicit=explicit, little=little, complete=complete, selection=selection)
    except Malformed as malformed:
        if malformed.too_deep:
            raise
        # Some converters write implicit VR where the syntax declares explicit VR, or the reverse (ingest.md 1a).
        try:
            walker = _walk(data, position, explicit=not explicit, little=little, complete=complete, selection=selection)
        except (Malformed, Short) as second:
            if isinstance(second, Short) and not complete and second.needed <= max_header_bytes(data, limits):
                raise
            # Neither reading works, so the header is damaged: report the problem in the declared syntax.
            raise malformed from second
        flags.append(Flag.F_TOLERANT_PARSE)
    pixel_at = walker.position if walker.pixel_tag else -1
    return Dataset(ElementValues(walker.elements, little), meta, syntax, pixel_at, tuple(flags))


def _parse_deflated(
    content: bytes, meta: ElementValues, *, limits: Limits, flags: tuple[Flag, ...], selection: ElementSelection
) -> Dataset:
    try:
        walker = _walk(content, 0, explicit=True, little=True, complete=False, selection=selection)
    except Short as short:
        if len(content) >= limits.header_bytes:
            raise Rejected(
                Reason.DEFLATE_LIMIT, f"it inflates to more than {limits.header_bytes} bytes of header"
            ) from short
        raise
    return Dataset(ElementValues(walker.elements), meta, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, -1, flags)


def _walk(
    data: bytes, position: int, *, explicit: bool, little: bool, complete: bool, selection: ElementSelection
) -> Walker:
    """Walk a dataset as far as this kind of object needs."""
    values, sequences = selection.value_tags, selection.sequence_tags
    walker = Walker(data, position, explicit=explicit, little=little, value_tags=values, sequence_tags=sequences)
    walker.walk(tags.LAST_OF_IMAGE_GROUPS, complete=complete)
    last_tag = selection.last_tag(ElementValues(walker.elements, little))
    if last_tag == tags.LAST_OF_GE:
        # Search for GE's group instead of walking there: its other groups, ten kilobytes, would double the time.
        group = data.find(_GE_GROUP[explicit], walker.position)
        if group < 0 or walker.pixel_tag:
            return walker
        walker.position = group
    if last_tag and not walker.pixel_tag:
        walker.walk(last_tag, complete=complete)
    return walker


def _last_image_tag(header: ElementValues) -> int:
    """The last tag to read of an image that has needed elements past group 0028; 0 if it has none."""
    sop_class = header.text(tags.SOP_CLASS_UID)
    if sop_class in LABELS:
        return 0  # label_record.py reads the remaining elements
    if sop_class in ENHANCED or header.integer(tags.NUMBER_OF_FRAMES) not in (None, 0, 1) or not header.raw(tags.ROWS):
        return tags.LAST_OF_FRAMES
    if header.text(tags.MODALITY) == "PT":
        return tags.LAST_OF_PET
    vendor = header.text(tags.MANUFACTURER).lower()
    if "uih" in vendor or "united imaging" in vendor:
        return tags.LAST_OF_UIH
    if "MOSAIC" in header.words(tags.IMAGE_TYPE):
        return tags.LAST_OF_CSA
    if vendor.startswith("ge ") and header.text(tags.MODALITY) == "MR":
        return tags.LAST_OF_GE
    return 0


_IMAGE_ELEMENTS = ElementSelection(tags.VALUES, tags.SEQUENCES, _last_image_tag)


def _meta(data: Buffer, position: int) -> tuple[int, ElementValues]:
    """(offset of the dataset, file meta information); the latter is empty if the file has none."""
    if data[position : position + 2] != b"\x02\x00":
        return position, ElementValues({})
    walker = Walker(data, position, explicit=True, little=True, value_tags=tags.META_ELEMENTS)
    try:
        walker.walk(0x0002FFFF, complete=False)
    except Malformed:
        # The walk may have run into a dataset in implicit VR; the meta information itself is always explicit.
        if data[walker.position : walker.position + 2] == b"\x02\x00":
            raise
    return walker.position, ElementValues(walker.elements)


def _guess_syntax(data: bytes, position: int) -> str:
    """Transfer syntax of a dataset without meta information, guessed from its first element."""
    if len(data) < position + 8:
        raise Malformed("no DICOM dataset")
    for endian, syntax in (("<", EXPLICIT_VR_LITTLE_ENDIAN), (">", EXPLICIT_VR_BIG_ENDIAN)):
        group, element, vr = struct.unpack_from(endian + "HH2s", data, position)
        if group in _FIRST_GROUPS and element < 0x3000:
            return syntax if vr.isalpha() and vr.isupper() else IMPLICIT_VR_LITTLE_ENDIAN
    raise Malformed("no DICOM dataset")


def data_start(data: Buffer) -> int:
    """Byte offset of the dataset, after preamble and meta information."""
    return _meta(data, 132 if data[128:132] == b"DICM" else 0)[0]


def looks_like_dataset(start: bytes) -> bool:
    """Whether a file without the DICM prefix may begin with a dataset."""
    try:
        return bool(_guess_syntax(start, 0))
    except Malformed:
        return False


def _inflated(data: bytes, position: int, limits: Limits) -> bytes:
    """The deflated dataset at `position`, inflated up to the limit for a header."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(data[position:], limits.header_bytes)
    except zlib.error as error:
        raise Rejected(Reason.TRUNCATED, "its deflated dataset is damaged") from error


def max_header_bytes(data: bytes, limits: Limits) -> int:
    """Limit for the header of the file that begins with `data`; multi-frame objects may have longer ones."""
    has_frames = any(uid.encode() in data[:FIRST_BYTES] for uid in (*ENHANCED, SEGMENTATION, LABEL_MAP))
    return limits.frames_header_bytes if has_frames else limits.header_bytes


def read_lut(path: str, *, limits: Limits) -> tuple[int, npt.NDArray[np.uint16]]:
    """(first stored value mapped, entries) of a file's modality lookup table. PS3.3 C.11.1. Raises Rejected."""
    dataset = read_dataset_file(path, limits)
    item = dataset.values.item(tags.MODALITY_LUT_SEQUENCE)
    descriptor = item.shorts(tags.LUT_DESCRIPTOR)
    entries = np.array(item.shorts(tags.LUT_DATA), np.uint16)
    if len(descriptor) != 3 or len(entries) < (descriptor[0] or 65536):
        problem = f"the modality lookup table has {len(entries)} entries, fewer than its descriptor declares"
        raise Rejected(Reason.BAD_HEADER, problem)
    signed = dataset.values.short(tags.PIXEL_REPRESENTATION) == 1
    first = descriptor[1] - 65536 if signed and descriptor[1] > 32767 else descriptor[1]
    return first, entries[: descriptor[0] or 65536]
