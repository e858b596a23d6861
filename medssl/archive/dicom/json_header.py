"""Converts DICOM JSON (PS3.18 annex F) to the bytes of a header, so that one parser serves files and servers."""

import base64
import struct
from collections.abc import Mapping
from typing import Any

from medssl.archive.dicom import tags
from medssl.archive.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_MAX_DEPTH = 16
# An empty pixel element ends the header for the parser; the pixels stay on the server.
_PIXEL_ELEMENT = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0)


class IncompleteHeader(Exception):  # noqa: N818 - it reads as the condition it reports
    """The JSON omits an element that the header scan needs, or encodes it against the standard."""


def header_bytes(metadata: Mapping[str, Any]) -> bytes:
    """A DICOM file without pixels, made of the elements that the header scan reads.

    Args:
        metadata: An instance in DICOM JSON: tag as eight hexadecimal digits to element.

    Raises:
        IncompleteHeader: An element is omitted or not encoded as PS3.18 says.
    """
    read_tags = tags.VALUES | tags.SEQUENCES
    selected = {name: element for name, element in metadata.items() if int(name, 16) in read_tags}
    if any("BulkDataURI" in element for element in selected.values()):
        raise IncompleteHeader("the server returned a reference instead of an element's value")
    syntax = _element("00020010", {"vr": "UI", "Value": [EXPLICIT_VR_LITTLE_ENDIAN]}, 0)
    return b"\0" * 128 + b"DICM" + syntax + _dataset(selected, 0) + _PIXEL_ELEMENT


def _dataset(elements: Mapping[str, Any], depth: int) -> bytes:
    if depth > _MAX_DEPTH:
        raise IncompleteHeader(f"sequences are nested more than {_MAX_DEPTH} deep")
    return b"".join(
        _element(name, element, depth) for name, element in sorted(elements.items()) if "BulkDataURI" not in element
    )


def _element(name: str, element: Mapping[str, Any], depth: int) -> bytes:
    try:
        vr = str(element["vr"])
        value = _value(vr, element, depth)
        value += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(value) % 2)
        head = struct.pack("<HH2s", int(name[:4], 16), int(name[4:8], 16), vr.encode("ascii"))
        return head + (struct.pack("<HI", 0, len(value)) if vr in _LONG else struct.pack("<H", len(value))) + value
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise IncompleteHeader(f"element {name} is not encoded as PS3.18 says") from error


def _value(vr: str, element: Mapping[str, Any], depth: int) -> bytes:
    if "InlineBinary" in element:
        return base64.b64decode(element["InlineBinary"], validate=True)
    values = element.get("Value", [])
    if vr == "SQ":
        items = [_dataset(item or {}, depth + 1) for item in values]
        return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    if vr in _NUMBERS:
        return b"".join(struct.pack("<" + _NUMBERS[vr], value) for value in values)
    if vr == "AT":
        return b"".join(struct.pack("<HH", int(value[:4], 16), int(value[4:], 16)) for value in values)
    return "\\".join(_text(value) for value in values).encode()


def _text(value: object) -> str:
    if isinstance(value, Mapping):  # a person's name
        return "=".join(str(value.get(part, "")) for part in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    return "" if value is None else str(value)
