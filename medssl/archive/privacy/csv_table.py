"""Small tables that somebody wrote for an ingest: CSV files with a header line."""

import csv
from pathlib import Path

from medssl.errors import UsageError


def read_table(path: Path, *columns: str, option: str, of: str = "") -> list[tuple[int, dict[str, str]]]:
    """(line number, cells by column) of each row, blanks around cells taken off; a cell that is missing is empty.

    columns: that the header line must have; others are read too. option: the command's, and of: what it lists, for
    the message. Raises UsageError when the file cannot be read, lacks a column, or has no row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = f"a CSV of {of}" if of else "a CSV"
        raise UsageError(f"{path} cannot be read as {what}. Check the path given to {option}.") from error
    if not rows or not set(columns) <= set(rows[0]):
        raise UsageError(f"{path} needs a header line '{','.join(columns)}' and at least one row. See docs/archive.md.")
    return [
        (line, {name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)})
        for line, row in enumerate(rows, start=2)
    ]
