"""metrics.jsonl: one line per logging step, read back complete, in part, and after a kill in the middle of a line."""

import json
from pathlib import Path
from typing import Any

from medssl.errors import DataError
from medssl.files import write_bytes

STEP, TIME = "step", "time"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines in the order in which they were written; empty when nothing was logged yet.

    A last line without its end (the process was killed while it wrote) does not count. DataError when any other line is
    damaged.
    """
    return [line for line, _ in _lines(path)]


class MetricsTail:
    """Reads a growing metrics.jsonl piece by piece, so that following a long run costs no more than what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = self._number = 0

    def read(self) -> list[dict[str, Any]]:
        """The complete lines since the last call. DataError when one is damaged."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            raw = file.read()
        complete = raw[: raw.rfind(b"\n") + 1].splitlines(keepends=True)
        lines = [
            parse_line(line, path=self._path, number=number)
            for number, line in enumerate(complete, start=self._number + 1)
        ]
        self._offset, self._number = self._offset + sum(map(len, complete)), self._number + len(complete)
        return lines


def drop_metrics_beyond(path: Path, *, at_step: int) -> int:
    """Leave only the complete lines of steps <= `at_step`, atomically; return how many lines were removed."""
    if not path.exists():
        return 0
    lines = _lines(path)
    earlier = [raw for line, raw in lines if line[STEP] <= at_step]
    content = b"".join(earlier)
    if len(content) != path.stat().st_size:
        write_bytes(path, content)
    return len(lines) - len(earlier)


def _lines(path: Path) -> list[tuple[dict[str, Any], bytes]]:
    if not path.exists():
        return []
    raw = path.read_bytes().splitlines(keepends=True)
    complete = raw if not raw or raw[-1].endswith(b"\n") else raw[:-1]
    return [(parse_line(line, path=path, number=number), line) for number, line in enumerate(complete, start=1)]


def parse_line(line: bytes, *, path: Path, number: int) -> dict[str, Any]:
    """One line as a dict with at least `step` (int) and `time` (seconds since 1970)."""
    try:
        entry = json.loads(line)
        if isinstance(entry[STEP], int) and isinstance(entry[TIME], float | int):
            return dict(entry)
    except (ValueError, TypeError, KeyError):
        pass
    raise DataError(f"{path} is damaged in line {number}. Delete that line to use the rest, or train the run again.")
