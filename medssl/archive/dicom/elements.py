"""Parser of the elements of a DICOM dataset in memory: keeps the values of selected tags and skips all others.

DICOM PS3.5 section 7. The parser limits the nesting of sequences, reads only the bytes it is given and decodes nothing.
It raises `Malformed` when a dataset breaks the standard and `Short` when the dataset continues past the given bytes.

A header scan spends most of its time here, and element headers (tag, VR, length) repeat from file to file. The parser
therefore caches what the first eight bytes of an element header mean.
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
# The first eight bytes of an element header to (tag if its value is kept, else 0; bytes of header and value together,
# or 0 if the length follows in the next four bytes).
HeaderCache: TypeAlias = dict[bytes, tuple[int, int]]
_MAX_CACHED_HEADERS = 8192  # a hostile archive could bring new ones with every file


def _numbers(words: bytes, endian: Literal["little", "big"]) -> frozenset[int]:
    return frozenset(int.from_bytes(word, endian) for word in words.split())


def _readers(
    sign: str, endian: Literal["little", "big"]
) -> tuple[Reader, Reader, Reader, frozenset[int], frozenset[int]]:
    """Readers for one byte order: explicit header, implicit or item header, length; then the short and long VRs."""
    explicit_header, tag_and_length, length = (struct.Struct(sign + form).unpack_from for form in ("HHHH", "HHI", "I"))
    return explicit_header, tag_and_length, length, _numbers(_SHORT_VR_WORDS, endian), _numbers(_LONG_VR_WORDS, endian)


_READERS = {True: _readers("<", "little"), False: _readers(">", "big")}
_UNKNOWN = {True: int.from_bytes(b"UN", "little"), False: int.from_bytes(b"UN", "big")}


@cache
def _header_cache(
    explicit: bool, little: bool, last_tag: int, value_tags: frozenset[int], sequence_tags: frozenset[int]
) -> HeaderCache:
    """The cache for one combination of arguments: the meaning of an element header depends on nothing else."""
    return {}


class Malformed(Exception):  # noqa: N818 - never leaves the scan layer
    """The bytes break the declared transfer syntax. `too_deep`: its sequences exceed `MAX_DEPTH`."""

    def __init__(self, problem: str, *, too_deep: bool = False) -> None:
        super().__init__(problem)
        self.too_deep = too_deep


class Short(Exception):  # noqa: N818 - never leaves the scan layer
    """The dataset continues past the given bytes; the parser needs at least `needed` bytes from the file's start."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


class Walker:
    """Parses a dataset from front to back, in one or several calls of `walk`.

    Args:
        data: The file from its first byte.
        position: Byte offset of the next element.
        explicit: Whether elements carry a VR.
        little: Whether numbers are little endian.
        value_tags: Tags whose value is kept.
        sequence_tags: Tags whose items are kept, as dictionaries. All other sequences are skipped.

    Attributes:
        elements: What was kept so far, by tag.
        pixel_tag: Tag of the pixel element at which the walk stopped, else 0.
    """

    def __init__(
        self,
        data: Buffer,
        position: int,
        *,
        explicit: bool,
        little: bool,
        value_tags: frozenset[int] = frozenset(),
        sequence_tags: frozenset[int] = frozenset(),
    ) -> None:
        self.data, self.position = data, position
        self.explicit, self.little = explicit, little
        self.value_tags, self.sequence_tags = value_tags, sequence_tags
        self.elements: Elements = {}
        self.pixel_tag = 0
        self._item_cache = _header_cache(explicit, little, _LAST_IN_ITEM, value_tags, sequence_tags)
        self._skipped_item_cache = _header_cache(explicit, little, _LAST_IN_ITEM, _NOTHING, _NOTHING)
        # The VR is compared as a number, in a set for each byte order: comparing bytes costs more.
        self._explicit_header, self._tag_and_length, self._length, self._short_vrs, self._long_vrs = _READERS[little]

    def walk(self, last_tag: int, *, complete: bool) -> None:
        """Read top-level elements and stop before the first tag above `last_tag` or before pixel data.

        Args:
            last_tag: Highest tag to read.
            complete: Whether `data` ends where the file ends.

        Raises:
            Malformed: The dataset breaks the standard.
            Short: The dataset continues past `data`.
        """
        end = len(self.data)
        position = self._walk_elements(self.position, end, self.elements, last_tag, 0)
        if position > end or (position + 8 > end and not complete):
            raise Short(max(end + 1, position + 8))

    def pixel_value(self) -> tuple[int, int]:
        """(first byte, length) of the value of the pixel element at which the walk stopped."""
        if not self.explicit:
            return self.position + 8, int(self._length(self.data, self.position + 4)[0])
        return self.position + 12, int(self._length(self.data, self.position + 8)[0])

    def _walk_elements(self, position: int, end: int, target: Elements | None, last_tag: int, depth: int) -> int:
        """Read elements from `position` and return where reading stopped: at `end`, past it, or at an item delimiter.

        target: where elements are kept; None skips all of them.
        """
        # One loop serves all levels, and its first branch is the hot one: a header in the cache costs a lookup and no
        # parsing. Only headers that say everything in eight bytes, or whose value is skipped, are cached (`_remember`),
        # so the first branch never has to handle sequences, pixel data or the tag at which the walk stops.
        data, read_length, last = self.data, self._length, end - 8
        value_tags, sequence_tags = (
            (self.value_tags, self.sequence_tags) if target is not None else (_NOTHING, _NOTHING)
        )
        if depth:
            cache = self._skipped_item_cache if target is None else self._item_cache
        else:
            cache = _header_cache(self.explicit, self.little, last_tag, value_tags, sequence_tags)
        while position <= last:
            cached = cache.get(data[position : position + 8])
            if cached is not None:
                kept_tag, length = cached
                if not length and position + 12 <= end and (count := read_length(data, position + 8)[0]) != _UNDEFINED:
                    length = 12 + count
                if length:
                    if kept_tag and target is not None:
                        if position + length > end:
                            raise Short(position + length)
                        target[kept_tag] = data[position + 8 : position + length]
                    position += length
                    continue
            tag, vr, value, length = self._header(position, end)
            if tag > last_tag or (not depth and tag in PIXEL_DATA):
                if depth and tag == _ITEM_END:
                    return value
                if not depth:
                    self.position, self.pixel_tag = position, tag if tag in PIXEL_DATA else 0
                    return position
            if length == _UNDEFINED or tag in sequence_tags:
                sequence_target = target if tag in sequence_tags else None
                position = self._sequence(tag, vr, value, length, end, sequence_target, depth + 1)
                continue
            if tag <= last_tag and tag not in PIXEL_DATA:
                self._remember(cache, position, value, length, tag if tag in value_tags else 0)
            position = value + length
            if tag in value_tags and target is not None:
                if position > end:
                    raise Short(position)
                target[tag] = data[value:position]
        if not depth:
            self.position = position
        return position

    def _remember(self, cache: HeaderCache, position: int, value: int, length: int, kept_tag: int) -> None:
        """Cache the header at `position` if its eight bytes say everything or its value is not kept."""
        if len(cache) >= _MAX_CACHED_HEADERS:
            cache.clear()
        if value == position + 8 and length < _LONG:
            cache[self.data[position:value]] = (kept_tag, 8 + length)
        elif value == position + 12 and not kept_tag:
            cache[self.data[position : position + 8]] = (0, 0)

    def _header(self, position: int, end: int) -> tuple[int, int, int, int]:
        """(tag, VR as a number, offset of the value, its length) of the element at `position`."""
        if not self.explicit:
            group, element, length = self._tag_and_length(self.data, position)
            return group << 16 | element, 0, position + 8, length
        group, element, vr, length = self._explicit_header(self.data, position)
        value = position + 8
        if vr not in self._short_vrs:
            value, length = self._long_form(position, group, vr, end)
        return group << 16 | element, vr, value, length

    def _long_form(self, position: int, group: int, vr: int, end: int) -> tuple[int, int]:
        """(offset of the value, its length) of an element with a long-form VR, or of an item delimiter."""
        if group == 0xFFFE:
            return position + 8, int(self._tag_and_length(self.data, position)[2])
        if vr not in self._long_vrs:
            self.position = position
            raise Malformed(f"an unknown value representation at byte {position}")
        if position + 12 > end:
            raise Short(position + 12)
        return position + 12, int(self._length(self.data, position + 8)[0])

    def _sequence(
        self, tag: int, vr: int, position: int, length: int, end: int, target: Elements | None, depth: int
    ) -> int:
        """Read the items of a sequence, keep them in `target` unless it is None, and return where the sequence ends."""
        if depth > MAX_DEPTH:
            raise Malformed(f"sequences nested more than {MAX_DEPTH} deep", too_deep=True)
        if vr == _UNKNOWN[self.little] and self.explicit:
            # PS3.5 6.2.2: a UN element of undefined length is a sequence in implicit VR little endian, whatever the
            # transfer syntax of the dataset.
            inner = Walker(self.data, position, explicit=False, little=True)
            return inner._sequence(tag, 0, position, length, end, None, depth)
        stop = end if length == _UNDEFINED else position + length
        if stop > end:
            raise Short(stop)
        items: list[Elements] = []
        if target is not None:
            target[tag] = items
        while position + 8 <= stop:
            group, element, size = self._tag_and_length(self.data, position)
            item_tag = group << 16 | element
            position += 8
            if item_tag == _SEQUENCE_END:
                return position
            if item_tag != _ITEM:
                raise Malformed(f"a sequence without an item at byte {position - 8}")
            item: Elements | None = {} if target is not None else None
            position = self._item(position, size, stop, item, depth)
            if item is not None:
                items.append(item)
        if length == _UNDEFINED:
            raise Short(stop + 1)
        return stop

    def _item(self, position: int, size: int, end: int, target: Elements | None, depth: int) -> int:
        """Read the elements of one item and return where it ends. A skipped item of known size is not parsed."""
        if size == _UNDEFINED:
            position = self._walk_elements(position, end, target, _LAST_IN_ITEM, depth)
            if position + 8 > end and self.data[position - 8 : position - 4] not in _ITEM_ENDS:
                raise Short(end + 1)
            return position
        end_of_item = position + size
        if end_of_item > end:
            raise Short(end_of_item)
        if (
            target is not None
            and self._walk_elements(position, end_of_item, target, _LAST_IN_ITEM, depth) > end_of_item
        ):
            raise Malformed(f"an element longer than its item at byte {position}")
        return end_of_item
