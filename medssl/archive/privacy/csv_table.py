"""Small tables that a user writes for an ingest: CSV files with a header line."""

import csv
from pathlib import Path

from medssl.errors import UsageError


def read_table(path: Path, *columns: str, option: str, of: str = "") -> list[tuple[int, dict[str, str]]]:
    """(line number, cells by column) of each row. Cells are stripped; a missing one is empty.

    Args:
        path: Of the CSV.
        columns: The header line must have these; others are read too.
        option: The command's option that names the file, for messages.
        of: What the table lists, for messages.

    Raises:
        UsageError: The file cannot be read, lacks a column, or has no row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        table = f"a CSV of {of}" if of else "a CSV"
        raise UsageError(f"{path} cannot be read as {table}. Check the path given to {option}.") from error
    if not rows or not set(columns) <= set(rows[0]):
        raise UsageError(f"{path} needs a header line '{','.join(columns)}' and at least one row. See docs/archive.md.")
    return [
        (line, {name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)})
        for line, row in enumerate(rows, start=2)
    ]
