"""Walking the elements of a DICOM dataset in memory: values of the wanted tags, everything else stepped over.

DICOM PS3.5 section 7. Bounded in depth, and in length by the bytes at hand; nothing is decoded. A dataset that breaks
the standard raises `Malformed`, one that goes on behind the bytes at hand raises `Short`.

A header scan is little else than this walk, and the heads of elements (tag, VR, length) repeat from file to file. What
a head says by its eight bytes alone is therefore looked up instead of worked out again.
"""

import mmap
import struct
from collections.abc import Callable
from functools import cache
from typing import Literal, TypeAlias

Buffer: TypeAlias = bytes | mmap.mmap
Elements: TypeAlias = dict[int, "bytes | list[Elements]"]

MAX_DEPTH = 16
PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

_UNDEFINED = 0xFFFFFFFF
_NOTHING: frozenset[int] = frozenset()
_LONG = 1 << 16
_ITEM_ENDS = (b"\xfe\xff\x0d\xe0", b"\xff\xfe\xe0\x0d")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LAST_IN_ITEM = _ITEM_END - 1
_SHORT_VR_WORDS = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_LONG_VR_WORDS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV"

Reader = Callable[[Buffer, int], tuple[int, ...]]
# Eight bytes of an element's head to (tag of which the value is kept, else 0; bytes of head and value together, 0
# where the length is in the four bytes behind them).
Heads: TypeAlias = dict[bytes, tuple[int, int]]
_MAX_HEADS = 8192  # a hostile archive has a new one in every file


def _numbers(words: bytes, endian: Literal["little", "big"]) -> frozenset[int]:
    return frozenset(int.from_bytes(word, endian) for word in words.split())


def _readers(
    sign: str, endian: Literal["little", "big"]
) -> tuple[Reader, Reader, Reader, frozenset[int], frozenset[int]]:
    """(head of an explicit element, head of an implicit one or of an item, a length, short VRs, long VRs) in one byte
    order.
    """
    head, pair, long = (struct.Struct(sign + form).unpack_from for form in ("HHHH", "HHI", "I"))
    return head, pair, long, _numbers(_SHORT_VR_WORDS, endian), _numbers(_LONG_VR_WORDS, endian)


_READERS = {True: _readers("<", "little"), False: _readers(">", "big")}
_UNKNOWN = {True: int.from_bytes(b"UN", "little"), False: int.from_bytes(b"UN", "big")}


@cache
def _known_heads(explicit: bool, little: bool, stop: int, values: frozenset[int], sequences: frozenset[int]) -> Heads:
    """Heads that were met so far in walks of one kind; what a head means depends on nothing but these arguments."""
    return {}


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
        self._heads_kept = _known_heads(explicit, little, _LAST_IN_ITEM, values, sequences)
        self._heads_skipped = _known_heads(explicit, little, _LAST_IN_ITEM, _NOTHING, _NOTHING)
        # The VR is read as a number in either byte order's own set: comparing bytes costs more.
        self._explicit_head, self._pair, self._long, self._short_vrs, self._long_vrs = _READERS[little]

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

        One loop for all levels. Heads that were met before take the short way through it, all others are looked into.
        """
        data, long, last = self.data, self._long, end - 8
        values, sequences = (self.values, self.sequences) if into is not None else (_NOTHING, _NOTHING)
        if depth:
            heads = self._heads_skipped if into is None else self._heads_kept
        else:
            heads = _known_heads(self.explicit, self.little, stop, values, sequences)
        while position <= last:
            known = heads.get(data[position : position + 8])
            if known is not None:
                kept, length = known
                if not length and position + 12 <= end and (count := long(data, position + 8)[0]) != _UNDEFINED:
                    length = 12 + count
                if length:
                    if kept and into is not None:
                        if position + length > end:
                            raise Short(position + length)
                        into[kept] = data[position + 8 : position + length]
                    position += length
                    continue
            tag, vr, value, length = self._head(position, end)
            if tag > stop or (not depth and tag in PIXEL_DATA):
                if depth and tag == _ITEM_END:
                    return value
                if not depth:
                    self.position, self.pixel_tag = position, tag if tag in PIXEL_DATA else 0
                    return position
            if length == _UNDEFINED or tag in sequences:
                keep = into if tag in sequences else None
                position = self._sequence(tag, vr, value, length, end, keep, depth + 1)
                continue
            if tag <= stop and tag not in PIXEL_DATA:
                self._remember(heads, position, value, length, tag if tag in values else 0)
            position = value + length
            if tag in values and into is not None:
                if position > end:
                    raise Short(position)
                into[tag] = data[value:position]
        if not depth:
            self.position = position
        return position

    def _remember(self, heads: Heads, position: int, value: int, length: int, kept: int) -> None:
        """Note what the head at `position` says, where its eight bytes say all or the value is not kept."""
        if len(heads) >= _MAX_HEADS:
            heads.clear()
        if value == position + 8 and length < _LONG:
            heads[self.data[position:value]] = (kept, 8 + length)
        elif value == position + 12 and not kept:
            heads[self.data[position : position + 8]] = (0, 0)

    def _head(self, position: int, end: int) -> tuple[int, int, int, int]:
        """(tag, VR as a number, offset of the value, its length) of the element at `position`."""
        if not self.explicit:
            group, element, length = self._pair(self.data, position)
            return group << 16 | element, 0, position + 8, length
        group, element, vr, length = self._explicit_head(self.data, position)
        value = position + 8
        if vr not in self._short_vrs:
            value, length = self._long_form(position, group, vr, end)
        return group << 16 | element, vr, value, length

    def _long_form(self, position: int, group: int, vr: int, end: int) -> tuple[int, int]:
        """(offset of the value, its length) of an element whose VR takes the long form, or of an item's delimiter."""
        if group == 0xFFFE:
            return position + 8, int(self._pair(self.data, position)[2])
        if vr not in self._long_vrs:
            self.position = position
            raise Malformed(f"an unknown value representation at byte {position}")
        if position + 12 > end:
            raise Short(position + 12)
        return position + 12, int(self._long(self.data, position + 8)[0])

    def _sequence(
        self, tag: int, vr: int, position: int, length: int, end: int, into: Elements | None, depth: int
    ) -> int:
        """Step through the items of a sequence, keeping them where `into` is given; returns where it ends."""
        if depth > MAX_DEPTH:
            raise Malformed(f"sequences nested deeper than {MAX_DEPTH}", too_deep=True)
        if vr == _UNKNOWN[self.little] and self.explicit:
            # PS3.5 6.2.2: an unknown sequence of undefined length is written in implicit syntax, whatever surrounds it.
            inner = Walker(self.data, position, explicit=False, little=True)
            return inner._sequence(tag, 0, position, length, end, None, depth)
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
        if length == _UNDEFINED:
            raise Short(stop + 1)
        return stop

    def _item(self, position: int, size: int, end: int, into: Elements | None, depth: int) -> int:
        """Elements of one item; returns where it ends. An unwanted item of known size is jumped over."""
        if size == _UNDEFINED:
            position = self._elements(position, end, into, _LAST_IN_ITEM, depth)
            if position + 8 > end and self.data[position - 8 : position - 4] not in _ITEM_ENDS:
                raise Short(end + 1)
            return position
        end_of_item = position + size
        if end_of_item > end:
            raise Short(end_of_item)
        if into is not None and self._elements(position, end_of_item, into, _LAST_IN_ITEM, depth) > end_of_item:
            raise Malformed(f"an element that is longer than its item, at byte {position}")
        return end_of_item
