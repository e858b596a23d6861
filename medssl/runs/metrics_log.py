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
        lines = _complete_lines(raw, self._path, first=self._number + 1)
        self._offset, self._number = self._offset + sum(len(line) for _, line in lines), self._number + len(lines)
        return [entry for entry, _ in lines]


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
    return _complete_lines(path.read_bytes(), path) if path.exists() else []


def _complete_lines(raw: bytes, path: Path, *, first: int = 1) -> list[tuple[dict[str, Any], bytes]]:
    """(entry, line) of every line that has its end. first: number in the file of the first of them, for errors."""
    complete = raw[: raw.rfind(b"\n") + 1].splitlines(keepends=True)
    return [(parse_line(line, path=path, number=number), line) for number, line in enumerate(complete, start=first)]


def parse_line(line: bytes, *, path: Path, number: int) -> dict[str, Any]:
    """One line as a dict with at least `step` (int) and `time` (seconds since 1970)."""
    try:
        entry = json.loads(line)
        if isinstance(entry[STEP], int) and isinstance(entry[TIME], float | int):
            return dict(entry)
    except (ValueError, TypeError, KeyError):
        pass
    raise DataError(f"{path} is damaged in line {number}. Delete that line to use the rest, or train the run again.")
