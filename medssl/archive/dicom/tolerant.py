"""The fallback reader of headers: pydicom, for files that break the standard in ways our own parser rejects.

It runs in the workers that scan headers, under their limits, and reads no more bytes than our own parser may. Its
result counts only if it stops exactly at the pixel element with all elements in ascending order: a reader that lost its
place in a damaged header does not end there by chance. Afterwards the file passes the same checks as any other.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from medssl.archive.dicom import tags
from medssl.archive.dicom.dataset import FIRST_BYTES, Dataset, max_header_bytes
from medssl.archive.dicom.elements import PIXEL_DATA, Elements
from medssl.archive.dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from medssl.archive.dicom.values import ElementValues
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag

if TYPE_CHECKING:
    import pydicom


def read_tolerantly(read: Callable[[int], bytes], size: int, limits: Limits, rejected: Rejected) -> Dataset:
    """Selected elements of a file that our own parser rejected.

    Args:
        read: `read(n)` returns the first n bytes of the file.
        size: Bytes of the file.
        limits: How much of the file may be read for its header.
        rejected: Why our own parser rejected the file; raised again if pydicom cannot read it reliably.
    """
    import pydicom

    start = read(FIRST_BYTES)
    # pydicom inflates without a limit; our own parser has tried within its limit.
    if DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.encode() in start:
        raise rejected
    data = read(min(size, max_header_bytes(start, limits)))
    stream = BytesIO(data)
    try:
        with _silenced_pydicom():
            dataset = pydicom.dcmread(stream, force=True, stop_before_pixels=True)
            pixel_at, order = stream.tell(), [int(tag) for tag in dataset.keys()]  # noqa: SIM118 - iterating would convert values
            elements, meta, syntax = _elements(dataset), _meta(dataset), _syntax(dataset)
    except Exception as error:  # pydicom raises two dozen exception types for damaged files
        raise rejected from error
    little = dataset.original_encoding[1] is not False
    if order != sorted(order) or not _pixel_element_at(data, pixel_at, little):
        raise rejected
    flags = (Flag.F_TOLERANT_PARSE,) if data[128:132] == b"DICM" else (Flag.F_NO_PREAMBLE, Flag.F_TOLERANT_PARSE)
    return Dataset(ElementValues(elements, little), meta, syntax, pixel_at, flags)


def _elements(dataset: "pydicom.Dataset") -> Elements:
    """Raw values of the selected elements, without conversion."""
    elements: Elements = {}
    for tag in dataset.keys():  # noqa: SIM118 - as above
        if tag in tags.SEQUENCES:
            elements[int(tag)] = [_elements(item) for item in dataset[tag].value]
        elif tag in tags.VALUES:
            elements[int(tag)] = _raw(dataset.get_item(tag))
    return elements


def _raw(element: Any) -> bytes:
    """Bytes of a value. Raises TypeError if pydicom has converted it."""
    value = element.value or b""
    if not isinstance(value, bytes):
        raise TypeError("pydicom has converted a value")
    return value


def _meta(dataset: "pydicom.Dataset") -> ElementValues:
    meta = getattr(dataset, "file_meta", {})
    return ElementValues({tag: str(meta[tag].value).encode() for tag in tags.META_ELEMENTS if tag in meta})


def _syntax(dataset: "pydicom.Dataset") -> str:
    """The transfer syntax that the file declares, else the one in which pydicom could read it."""
    declared = _meta(dataset).text(tags.TRANSFER_SYNTAX_UID)
    implicit, little = dataset.original_encoding
    return declared or (
        IMPLICIT_VR_LITTLE_ENDIAN if implicit else EXPLICIT_VR_LITTLE_ENDIAN if little else EXPLICIT_VR_BIG_ENDIAN
    )


def _pixel_element_at(data: bytes, position: int, little: bool) -> bool:
    order: Literal["little", "big"] = "little" if little else "big"
    group, element = (int.from_bytes(data[at : at + 2], order) for at in (position, position + 2))
    return len(data) >= position + 12 and group << 16 | element in PIXEL_DATA


@contextmanager
def _silenced_pydicom() -> Iterator[None]:
    """Suppress pydicom's warnings: they quote values, and values can name patients."""
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled
