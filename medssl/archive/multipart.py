"""The one file in an answer of WADO-RS, as it streams by (PS3.18 8.7; RFC 2046 5.1)."""

import re
from collections.abc import Iterable, Iterator

_LONGEST_HEAD = 1 << 16


def only_part(content_type: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The content of the first part. Raises ValueError when the answer holds none, or ends within it."""
    kind = content_type.lower()
    if kind.startswith("application/dicom") and "json" not in kind:
        yield from pieces  # a single file, as some servers answer
        return
    found = re.search(r'boundary="?([^";,]{1,200})"?', content_type, re.IGNORECASE)
    if not kind.startswith("multipart/related") or found is None:
        raise ValueError("the answer holds no DICOM file")
    end = b"\r\n--" + found[1].strip().encode()
    stream = iter(pieces)
    rest = _behind_head(stream, end)
    while (place := rest.find(end)) < 0:
        # The boundary may lie across two pieces.
        if len(rest) > len(end):
            yield rest[: -len(end)]
            rest = rest[-len(end) :]
        piece = next(stream, b"")
        if not piece:
            raise ValueError("the answer breaks off")
        rest += piece
    yield rest[:place]


def _behind_head(stream: Iterator[bytes], end: bytes) -> bytes:
    """What was read behind the first boundary and the part's own header."""
    start = b"\r\n"
    while True:
        first = start.find(end)
        head = start.find(b"\r\n\r\n", first + len(end)) if first >= 0 else -1
        if head >= 0:
            return start[head + 4 :]
        piece = next(stream, b"")
        if not piece or len(start) > _LONGEST_HEAD + (1 << 20):
            raise ValueError("the answer holds no part")
        start += piece
