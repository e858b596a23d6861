"""Tables of the private index, their format, and the questions to it that SQLite answers on disk."""

import sqlite3
from importlib.metadata import version
from pathlib import Path

from medssl.errors import DataError
from medssl.formats import check_format

FORMAT = 3

SCHEMA = (
    "CREATE TABLE metadata (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE folders (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, root TEXT NOT NULL)",
    """
    CREATE TABLE files (
        id INTEGER PRIMARY KEY, folder INTEGER NOT NULL REFERENCES folders, name TEXT NOT NULL, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        kind TEXT NOT NULL, reason TEXT, detail TEXT, series TEXT, record TEXT, vanished INTEGER NOT NULL DEFAULT 0,
        UNIQUE (folder, name))
    """,
    "CREATE INDEX files_of_series ON files (series) WHERE series IS NOT NULL",
    "CREATE INDEX files_rejected ON files (reason) WHERE reason IS NOT NULL",
    "CREATE TABLE dirty (series TEXT PRIMARY KEY) WITHOUT ROWID",
    """
    CREATE TABLE scans (
        scan_id TEXT PRIMARY KEY, series TEXT NOT NULL, load_plan TEXT, planned TEXT NOT NULL, detail TEXT NOT NULL,
        outcome TEXT, previous TEXT) WITHOUT ROWID
    """,
    "CREATE INDEX scans_of_series ON scans (series)",
    "CREATE INDEX scans_to_load ON scans (scan_id) WHERE outcome IS NULL AND load_plan IS NOT NULL",
)

# All but one of the scans that are voxel for voxel the same: one with a label stays before one without, then the
# smallest id. SQLite sorts on disk, so that memory does not grow with the archive.
DUPLICATES = """
SELECT scan_id FROM (
    SELECT scan_id, ROW_NUMBER() OVER (
        PARTITION BY json_extract(outcome, '$.content_hash')
        ORDER BY json_array_length(outcome, '$.labels') = 0, scan_id) AS place
    FROM scans
    WHERE json_extract(outcome, '$.content_hash') IS NOT NULL AND json_extract(outcome, '$.reason') IS NULL)
WHERE place > 1
"""
BY_STUDY = """
SELECT json_extract(planned, '$.study_id') AS study, planned FROM scans
WHERE json_extract(planned, '$.modality') = ? AND json_extract(planned, '$.reason') IS NULL
ORDER BY study, scan_id
"""


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables of a new index, all or none; leave an index that has tables as it is."""
    if _table_names(connection):
        return
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            connection.execute(statement)
        values = (("format", str(FORMAT)), ("medssl", version("medssl")))
        connection.executemany("INSERT INTO metadata VALUES (?, ?)", values)


def check_index(connection: sqlite3.Connection, path: Path) -> None:
    """Raise DataError where an index is of another format than this medssl reads."""
    # Before format 3 the table `metadata` was called `facts`.
    tables = _table_names(connection) & {"metadata", "facts"}
    values = dict(connection.execute(f"SELECT name, value FROM {tables.pop()}")) if tables else {}
    if "format" not in values:
        raise DataError(f"{path} is damaged (it has no format). Restore it from a copy, or ingest into a new folder.")
    remedy = "ingest into a new folder"
    check_format(path, values["format"], str(FORMAT), writer=values.get("medssl"), remedy=remedy)


def _table_names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
