"""Walking the elements of a DICOM dataset in memory: values of the wanted tags, everything else stepped over.

DICOM PS3.5 section 7. Bounded in depth and in the number of elements; nothing is decoded. A dataset that breaks the
standard raises `Malformed`, one that goes on behind the bytes at hand raises `Short`.
"""

import struct
from typing import TypeAlias

Elements: TypeAlias = dict[int, "bytes | list[Elements]"]

MOST_DEPTH = 16
MOST_ELEMENTS = 20_000
MOST_NESTED = 2_000_000
PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

_UNDEFINED = 0xFFFFFFFF
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
        data: bytes,
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
        self._count = 0
        self._nested = 0
        endian = "<" if little else ">"
        self._head = struct.Struct(endian + ("HH2sH" if explicit else "HHI")).unpack_from
        self._pair = struct.Struct(endian + "HHI").unpack_from
        self._long = struct.Struct(endian + "I").unpack_from

    def walk(self, stop: int, *, complete: bool) -> None:
        """Read top-level elements up to the first tag above `stop`, or pixel data, before which `position` stays.

        complete: whether `data` ends where the file ends. Raises Malformed and Short.
        """
        data, end, values, sequences, found = self.data, len(self.data), self.values, self.sequences, self.found
        position = self.position
        while position + 8 <= end:
            tag, vr, length, value = self._element(position)
            if tag > stop:
                return
            if tag in PIXEL_DATA:
                self.pixel_tag = tag
                return
            self._count += 1
            if self._count > MOST_ELEMENTS:
                raise Malformed("more than 20000 elements", too_deep=True)
            if length == _UNDEFINED or tag in sequences:
                position = self._sequence(tag, vr, value, length, end, found if tag in sequences else None, 1)
            else:
                position = value + length
                if tag in values:
                    if position > end:
                        raise Short(position)
                    found[tag] = data[value:position]
            self.position = position
        if not complete:
            raise Short(max(end + 1, position + 8))
        if position > end:
            raise Short(position)

    def pixel_value(self) -> tuple[int, int]:
        """(first byte, length) of the value of the pixel element before which the walk has stopped."""
        _, _, length, value = self._element(self.position)
        return value, length

    def _element(self, position: int) -> tuple[int, bytes, int, int]:
        """(tag, VR, length, offset of the value) of the element at `position`."""
        if not self.explicit:
            group, element, length = self._head(self.data, position)
            return group << 16 | element, b"", length, position + 8
        group, element, vr, length = self._head(self.data, position)
        if vr in _SHORT_VRS:
            return group << 16 | element, vr, length, position + 8
        if vr in _LONG_VRS:
            if position + 12 > len(self.data):
                raise Short(position + 12)
            return group << 16 | element, vr, self._long(self.data, position + 8)[0], position + 12
        tag = group << 16 | element
        if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            return tag, b"", self._pair(self.data, position)[2], position + 8
        raise Malformed(f"an unknown value representation at byte {position}")

    def _sequence(
        self, tag: int, vr: bytes, position: int, length: int, end: int, into: Elements | None, depth: int
    ) -> int:
        """Step through the items of a sequence, keeping them where `into` is given; returns where it ends."""
        if depth > MOST_DEPTH:
            raise Malformed(f"nested deeper than {MOST_DEPTH}", too_deep=True)
        if vr == b"UN" and self.explicit:
            # PS3.5 6.2.2: an unknown sequence of undefined length is written in implicit syntax, whatever surrounds it.
            inner = Walker(self.data, position, explicit=False, little=True)
            return inner._sequence(tag, b"", position, length, end, None, depth)
        stop = end if length == _UNDEFINED else position + length
        if stop > end:
            raise Short(stop)
        items: list[Elements] = []
        while position + 8 <= stop:
            group, element, size = self._pair(self.data, position)
            head = group << 16 | element
            position += 8
            if head == _SEQUENCE_END:
                break
            if head != _ITEM:
                raise Malformed(f"no item where one must be, at byte {position - 8}")
            item: Elements = {}
            position = self._item(position, size, stop, item if into is not None else None, depth)
            items.append(item)
        else:
            if length == _UNDEFINED:
                raise Short(stop + 1)
            position = stop
        if into is not None:
            into[tag] = items
        return position

    def _item(self, position: int, size: int, end: int, into: Elements | None, depth: int) -> int:
        """Elements of one item; returns where it ends. An unwanted item of known size is jumped over."""
        if size != _UNDEFINED:
            end_of_item = position + size
            if end_of_item > end:
                raise Short(end_of_item)
            if into is None:
                return end_of_item
            end = end_of_item
        while position + 8 <= end:
            tag, vr, length, value = self._element(position)
            if tag == _ITEM_END:
                return value
            self._nested += 1
            if self._nested > MOST_NESTED:
                raise Malformed("more than two million nested elements", too_deep=True)
            if length == _UNDEFINED or (into is not None and tag in self.sequences):
                keep = into if tag in self.sequences else None
                position = self._sequence(tag, vr, value, length, end, keep, depth + 1)
                continue
            position = value + length
            if position > end:
                raise Short(position)
            if into is not None and tag in self.values:
                into[tag] = self.data[value:position]
        if size == _UNDEFINED:
            raise Short(end + 1)
        return end
