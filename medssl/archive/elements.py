"""Walking the elements of a DICOM dataset in memory: values of the wanted tags, everything else stepped over.

DICOM PS3.5 section 7. Bounded in depth and in the number of elements; nothing is decoded. A dataset that breaks the
standard raises `Malformed`, one that goes on behind the bytes at hand raises `Short`.
"""

import mmap
import struct
from typing import TypeAlias

Buffer: TypeAlias = bytes | mmap.mmap
Elements: TypeAlias = dict[int, "bytes | list[Elements]"]

MOST_DEPTH = 16
MOST_ELEMENTS = 20_000
MOST_NESTED = 2_000_000
PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

_UNDEFINED = 0xFFFFFFFF
_NOTHING: frozenset[int] = frozenset()
_ITEM_ENDS = (b"\xfe\xff\x0d\xe0", b"\xff\xfe\xe0\x0d")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHORT_VR_WORDS = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_LONG_VR_WORDS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV"
_SHORT_VRS, _LONG_VRS = frozenset(_SHORT_VR_WORDS.split()), frozenset(_LONG_VR_WORDS.split())


class Malformed(Exception):  # noqa: N818 - never leaves the scan layer
    """The bytes are no dataset of the declared syntax. `too_deep`: because of nesting or sheer number."""

    def __init__(self, what: str, *, too_deep: bool = False) -> None:
        super().__init__(what)
        self.too_deep = too_deep


class Short(Exception):  # noqa: N818 - never leaves the scan layer
    """The dataset goes on behind the bytes at hand; `needed` bytes from the start at least."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


class Walker:
    """Reads a dataset from front to back; can be asked to go further after it has stopped.

    data: the file from its first byte. position: where the next element begins. explicit, little: the transfer syntax.
    values: tags of which the value is kept. sequences: tags of which the items are kept, as dictionaries; all other
    sequences are stepped over.
    """

    def __init__(
        self,
        data: Buffer,
        position: int,
        *,
        explicit: bool,
        little: bool,
        values: frozenset[int] = frozenset(),
        sequences: frozenset[int] = frozenset(),
    ) -> None:
        self.data, self.position = data, position
        self.explicit, self.little = explicit, little
        self.values, self.sequences = values, sequences
        self.found: Elements = {}
        self.pixel_tag = 0
        self._nested = 0
        endian = "<" if little else ">"
        self._head = struct.Struct(endian + ("HH2sH" if explicit else "HHI")).unpack_from
        self._pair = struct.Struct(endian + "HHI").unpack_from
        self._long = struct.Struct(endian + "I").unpack_from

    def walk(self, stop: int, *, complete: bool) -> None:
        """Read top-level elements up to the first tag above `stop`, or pixel data, before which `position` stays.

        complete: whether `data` ends where the file ends. Raises Malformed and Short.
        """
        end = len(self.data)
        position = self._elements(self.position, end, self.found, stop, 0)
        if position > end or (position + 8 > end and not complete):
            raise Short(max(end + 1, position + 8))

    def pixel_value(self) -> tuple[int, int]:
        """(first byte, length) of the value of the pixel element before which the walk has stopped."""
        if not self.explicit:
            return self.position + 8, int(self._long(self.data, self.position + 4)[0])
        return self.position + 12, int(self._long(self.data, self.position + 8)[0])

    def _elements(self, position: int, end: int, into: Elements | None, stop: int, depth: int) -> int:
        """Read elements from `position`; returns where it stopped: at `end` or behind it, or at an end of item.

        One loop for all levels, without a call per element: a header scan is nothing but this.
        """
        data, explicit, head = self.data, self.explicit, self._head
        values, sequences = (self.values, self.sequences) if into is not None else (_NOTHING, _NOTHING)
        count, most = 0, MOST_NESTED if depth else MOST_ELEMENTS
        while position + 8 <= end:
            if not depth:
                self.position = position
            value = position + 8
            vr = b""
            if explicit:
                group, element, vr, length = head(data, position)
                if vr not in _SHORT_VRS:
                    if group == 0xFFFE:
                        length = self._pair(data, position)[2]
                    elif vr not in _LONG_VRS:
                        raise Malformed(f"an unknown value representation at byte {position}")
                    elif value + 4 > end:
                        raise Short(value + 4)
                    else:
                        length = self._long(data, value)[0]
                        value += 4
            else:
                group, element, length = head(data, position)
            tag = group << 16 | element
            if not depth and (tag > stop or tag in PIXEL_DATA):
                self.pixel_tag = tag if tag in PIXEL_DATA else 0
                return position
            elif tag == _ITEM_END:
                return value
            count += 1
            if count > most or self._nested > MOST_NESTED:
                raise Malformed(f"more than {most} elements", too_deep=True)
            if length == _UNDEFINED or tag in sequences:
                keep = into if tag in sequences else None
                position = self._sequence(tag, vr, value, length, end, keep, depth + 1)
                continue
            position = value + length
            if tag in values and into is not None:
                if position > end:
                    raise Short(position)
                into[tag] = data[value:position]
        self._nested += count if depth else 0
        if not depth:
            self.position = position
        return position

    def _sequence(
        self, tag: int, vr: bytes, position: int, length: int, end: int, into: Elements | None, depth: int
    ) -> int:
        """Step through the items of a sequence, keeping them where `into` is given; returns where it ends."""
        if depth > MOST_DEPTH:
            raise Malformed(f"sequences nested deeper than {MOST_DEPTH}", too_deep=True)
        if vr == b"UN" and self.explicit:
            # PS3.5 6.2.2: an unknown sequence of undefined length is written in implicit syntax, whatever surrounds it.
            inner = Walker(self.data, position, explicit=False, little=True)
            return inner._sequence(tag, b"", position, length, end, None, depth)
        stop = end if length == _UNDEFINED else position + length
        if stop > end:
            raise Short(stop)
        items: list[Elements] = []
        if into is not None:
            into[tag] = items
        while position + 8 <= stop:
            group, element, size = self._pair(self.data, position)
            head = group << 16 | element
            position += 8
            if head == _SEQUENCE_END:
                return position
            if head != _ITEM:
                raise Malformed(f"no item where one must be, at byte {position - 8}")
            item: Elements | None = {} if into is not None else None
            position = self._item(position, size, stop, item, depth)
            if item is not None:
                items.append(item)
            self._nested += 1
        if length == _UNDEFINED:
            raise Short(stop + 1)
        return stop

    def _item(self, position: int, size: int, end: int, into: Elements | None, depth: int) -> int:
        """Elements of one item; returns where it ends. An unwanted item of known size is jumped over."""
        if size == _UNDEFINED:
            position = self._elements(position, end, into, 0, depth)
            if position + 8 > end and self.data[position - 8 : position - 4] not in _ITEM_ENDS:
                raise Short(end + 1)
            return position
        end_of_item = position + size
        if end_of_item > end:
            raise Short(end_of_item)
        if into is not None and self._elements(position, end_of_item, into, 0, depth) > end_of_item:
            raise Malformed(f"an element that is longer than its item, at byte {position}")
        return end_of_item
