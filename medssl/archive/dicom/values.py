"""Typed access to the raw elements of a DICOM dataset or item.

The slices of a series repeat nearly all their values, so recently decoded texts and numbers are cached.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from medssl.archive.dicom.elements import Elements
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

_CACHE_SIZE = 4096


@lru_cache(_CACHE_SIZE)
def _text(raw: bytes) -> str:
    """Decode as Latin-1: text is only compared, and this keeps equal bytes equal whatever their character set."""
    return raw.decode("latin-1").strip(" \0")


@lru_cache(_CACHE_SIZE)
def _words(raw: bytes) -> tuple[str, ...]:
    text = _text(raw)
    return tuple(part.strip() for part in text.split("\\")) if text else ()


@lru_cache(_CACHE_SIZE)
def _numbers(raw: bytes) -> tuple[float, ...] | None:
    """The numbers of a decimal or integer string; None if one of them is not a finite number."""
    text = raw.decode("latin-1").strip(" \0")
    if not text:
        return ()
    try:
        numbers = tuple(map(float, text.split("\\")))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


@dataclass(frozen=True, slots=True)
class ElementValues:
    """Elements of one dataset or item; `little`: whether its binary numbers are little endian."""

    elements: Mapping[int, "bytes | list[Elements]"]
    little: bool = True

    def raw(self, tag: int) -> bytes:
        """Bytes of a value; empty if it is absent."""
        value = self.elements.get(tag, b"")
        return value if isinstance(value, bytes) else b""

    def text(self, tag: int) -> str:
        """Text without padding; '' if it is absent."""
        raw = self.elements.get(tag)
        return _text(raw) if raw and isinstance(raw, bytes) else ""

    def words(self, tag: int) -> tuple[str, ...]:
        """The values of a multi-valued text."""
        raw = self.elements.get(tag)
        return _words(raw) if raw and isinstance(raw, bytes) else ()

    def decimals(self, tag: int) -> tuple[float, ...]:
        """Numbers of a decimal or integer string. Raises Rejected with BAD_NUMBER if one is not a finite number."""
        numbers = _numbers(self.raw(tag))
        if numbers is None:
            raise Rejected(Reason.BAD_NUMBER, f"element {name(tag)} is no finite number")
        return numbers

    def decimal(self, tag: int) -> float | None:
        """The first number of a decimal string, for values that no geometry depends on; None if absent or invalid."""
        raw = self.elements.get(tag)
        numbers = _numbers(raw) if raw and isinstance(raw, bytes) else None
        return numbers[0] if numbers else None

    def integer(self, tag: int) -> int | None:
        """The first number of an integer string, '1.0' included; None if it is absent or invalid."""
        number = self.decimal(tag)
        return None if number is None else int(number)

    def short(self, tag: int, default: int = 0) -> int:
        """The first unsigned 16-bit number."""
        raw = self.raw(tag)
        return int.from_bytes(raw[:2], "little" if self.little else "big") if len(raw) >= 2 else default

    def signed_short(self, tag: int) -> int:
        """The first signed 16-bit number."""
        return int(struct.unpack_from(self._endian + "h", self.raw(tag))[0])

    def long(self, tag: int) -> int | None:
        """The first unsigned 32-bit number."""
        raw = self.raw(tag)
        return int(struct.unpack_from(self._endian + "I", raw)[0]) if len(raw) >= 4 else None

    def shorts(self, tag: int) -> tuple[int, ...]:
        """All unsigned 16-bit numbers."""
        raw = self.raw(tag)
        return struct.unpack_from(f"{self._endian}{len(raw) // 2}H", raw)

    def doubles(self, tag: int) -> tuple[float, ...]:
        """All 64-bit floats."""
        if tag not in self.elements:
            return ()
        raw = self.raw(tag)
        return struct.unpack_from(f"{self._endian}{len(raw) // 8}d", raw)

    def items(self, tag: int) -> "list[ElementValues]":
        """Items of a sequence."""
        value = self.elements.get(tag)
        return [ElementValues(item, self.little) for item in value] if isinstance(value, list) else []

    def item(self, tag: int) -> "ElementValues":
        """First item of a sequence; an empty item if the sequence is absent."""
        items = self.items(tag)
        return items[0] if items else ElementValues({}, self.little)

    @property
    def _endian(self) -> str:
        return "<" if self.little else ">"


def name(tag: int) -> str:
    """(gggg,eeee)."""
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
