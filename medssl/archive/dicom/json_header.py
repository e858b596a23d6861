"""DICOM JSON (PS3.18 annex F) to the bytes of a header, so that one parser judges files and servers alike."""

import base64
import struct
from collections.abc import Mapping
from typing import Any

from medssl.archive.dicom import tags
from medssl.archive.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_MAX_DEPTH = 16
# Ends the header for the parser; what lies behind it is on the server.
_PIXELS = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0)


class NotTold(Exception):  # noqa: N818 - it reads as what is the matter
    """The JSON leaves out, or writes in a way of its own, what the header scan needs."""


def header_bytes(told: Mapping[str, Any]) -> bytes:
    """A DICOM file of the elements that the header scan wants, without pixels. Raises NotTold."""
    wanted = tags.VALUES | tags.SEQUENCES
    chosen = {name: element for name, element in told.items() if int(name, 16) in wanted}
    if any("BulkDataURI" in element for element in chosen.values()):
        raise NotTold("an element that is needed is left out")
    syntax = _element("00020010", {"vr": "UI", "Value": [EXPLICIT_VR_LITTLE_ENDIAN]}, 0)
    return b"\0" * 128 + b"DICM" + syntax + _dataset(chosen, 0) + _PIXELS


def _dataset(told: Mapping[str, Any], depth: int) -> bytes:
    if depth > _MAX_DEPTH:
        raise NotTold("sequences are nested too deep")
    return b"".join(_element(name, told[name], depth) for name in sorted(told) if "BulkDataURI" not in told[name])


def _element(name: str, element: Mapping[str, Any], depth: int) -> bytes:
    try:
        vr = str(element["vr"])
        value = _value(vr, element, depth)
        value += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(value) % 2)
        head = struct.pack("<HH2s", int(name[:4], 16), int(name[4:8], 16), vr.encode("ascii"))
        return head + (struct.pack("<HI", 0, len(value)) if vr in _LONG else struct.pack("<H", len(value))) + value
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise NotTold(f"element {name} is written in a way of its own") from error


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
