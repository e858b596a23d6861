"""The second reader of headers: pydicom, for files that break the standard in ways our own parser refuses.

It runs where headers are scanned, in a worker with limits that may die, and sees no more bytes than our own parser may.
It is believed only where it arrives exactly at the pixel element with all elements in order: a reader that has lost its
way in a damaged header gets there by no accident. What it read is then judged and proven like any other file.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from medssl.archive.dicom import tags
from medssl.archive.dicom.dataset import FIRST_BYTES, Dataset, most_header_bytes
from medssl.archive.dicom.elements import PIXEL_DATA, Elements
from medssl.archive.dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from medssl.archive.dicom.values import Values
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag

if TYPE_CHECKING:
    import pydicom


def read_tolerantly(read: Callable[[int], bytes], size: int, limits: Limits, refused: Rejected) -> Dataset:
    """Wanted elements of a file of `size` bytes; `read(n)` gives its first n bytes.

    Raises `refused`, why our own parser did not read it, where pydicom is not to be believed either.
    """
    import pydicom

    start = read(FIRST_BYTES)
    # pydicom inflates without limit; the bounded way was tried before.
    if DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.encode() in start:
        raise refused
    data = read(min(size, most_header_bytes(start, limits)))
    stream = BytesIO(data)
    try:
        with _without_words():
            found = pydicom.dcmread(stream, force=True, stop_before_pixels=True)
            pixel_at, order = stream.tell(), [int(tag) for tag in found.keys()]  # noqa: SIM118 - no values are asked for
            elements, meta, syntax = _elements(found), _meta(found), _syntax(found)
    except Exception as error:  # pydicom raises two dozen types for what is wrong in a file
        raise refused from error
    little = found.original_encoding[1] is not False
    if order != sorted(order) or not _pixel_element_at(data, pixel_at, little):
        raise refused
    flags = (Flag.F_TOLERANT_PARSE,) if data[128:132] == b"DICM" else (Flag.F_NO_PREAMBLE, Flag.F_TOLERANT_PARSE)
    return Dataset(Values(elements, little), meta, syntax, pixel_at, flags)


def _elements(found: "pydicom.Dataset") -> Elements:
    """Raw values of the wanted elements; nothing is converted."""
    elements: Elements = {}
    for tag in found.keys():  # noqa: SIM118 - as above
        if tag in tags.SEQUENCES:
            elements[int(tag)] = [_elements(item) for item in found[tag].value]
        elif tag in tags.VALUES:
            elements[int(tag)] = _raw(found.get_item(tag))
    return elements


def _raw(element: Any) -> bytes:
    """Bytes of a value. Raises TypeError where pydicom has made something else of it."""
    value = element.value or b""
    if not isinstance(value, bytes):
        raise TypeError("a value that is not raw")
    return value


def _meta(found: "pydicom.Dataset") -> Values:
    meta = getattr(found, "file_meta", {})
    return Values({tag: str(meta[tag].value).encode() for tag in tags.META_ELEMENTS if tag in meta})


def _syntax(found: "pydicom.Dataset") -> str:
    """As the file says, else by how pydicom could read it."""
    said = _meta(found).text(tags.TRANSFER_SYNTAX_UID)
    implicit, little = found.original_encoding
    return said or (
        IMPLICIT_VR_LITTLE_ENDIAN if implicit else EXPLICIT_VR_LITTLE_ENDIAN if little else EXPLICIT_VR_BIG_ENDIAN
    )


def _pixel_element_at(data: bytes, position: int, little: bool) -> bool:
    order: Literal["little", "big"] = "little" if little else "big"
    group, element = (int.from_bytes(data[at : at + 2], order) for at in (position, position + 2))
    return len(data) >= position + 12 and group << 16 | element in PIXEL_DATA


@contextmanager
def _without_words() -> Iterator[None]:
    """Keep to itself what pydicom warns of: it quotes values, and values name patients."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
