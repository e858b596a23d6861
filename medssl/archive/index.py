"""The private index: every file that was seen and every scan that was planned, with paths and real identifiers.

One SQLite file (mode 0600 in a folder of mode 0700). A change is visible whole or not at all, so a run that was
killed at any
moment is continued by running it again. Memory does not grow with the archive: rows are read as they are needed.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.discover import Stamp
from medssl.archive.reasons import Reason
from medssl.errors import DataError

FORMAT = 2
# What may be over by the next run is tried again then.
PASSING = frozenset({Reason.IN_FLUX, Reason.IO_ERROR, Reason.TIMEOUT})

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, root TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, folder INTEGER NOT NULL REFERENCES folders, name TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    kind TEXT NOT NULL, reason TEXT, finding TEXT, series TEXT, record TEXT, vanished INTEGER NOT NULL DEFAULT 0,
    UNIQUE (folder, name));
CREATE INDEX IF NOT EXISTS files_of_series ON files (series) WHERE series IS NOT NULL;
CREATE INDEX IF NOT EXISTS files_rejected ON files (reason) WHERE reason IS NOT NULL;
CREATE TABLE IF NOT EXISTS dirty (series TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scans (
    scan_id TEXT PRIMARY KEY, series TEXT NOT NULL, source TEXT, row TEXT NOT NULL, finding TEXT NOT NULL DEFAULT '',
    outcome TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS scans_of_series ON scans (series);
CREATE INDEX IF NOT EXISTS scans_to_load ON scans (scan_id) WHERE outcome IS NULL AND source IS NOT NULL;
"""

# All but one of the scans that are voxel for voxel the same: one with a label is kept before one without, then the
# smallest id. SQLite sorts on disk, so that memory does not grow with the archive.
_COPIES = """
SELECT scan_id FROM (
    SELECT scan_id, ROW_NUMBER() OVER (
        PARTITION BY json_extract(outcome, '$.content_hash')
        ORDER BY json_array_length(outcome, '$.labels') = 0, scan_id) AS place
    FROM scans
    WHERE json_extract(outcome, '$.content_hash') IS NOT NULL AND json_extract(outcome, '$.reason') IS NULL)
WHERE place > 1
"""
_BY_STUDY = """
SELECT json_extract(row, '$.study_id') AS study, row FROM scans
WHERE json_extract(row, '$.modality') = ? AND json_extract(row, '$.status') = 'accepted'
ORDER BY study, scan_id
"""


@dataclass(frozen=True)
class IndexedFile:
    """One file and what its header said. record: JSON of the scan layer, None where there is none."""

    path: Path
    root: Path
    stamp: Stamp
    kind: str
    reason: Reason | None
    finding: str
    series: str | None
    record: str | None


@dataclass(frozen=True)
class IndexedScan:
    """One planned or rejected scan. row, source and outcome are JSON; source is None where there is nothing to load."""

    scan_id: str
    series: str
    source: str | None
    row: str
    finding: str
    outcome: str | None


class Index:
    """The tables behind one cohort."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    # Files

    def known(self, folder: Path) -> dict[str, tuple[Stamp, str | None]]:
        """Files of one folder that an earlier run saw: stamp and reason by name. Vanished ones are not among them."""
        rows = self._db.execute(
            "SELECT name, size, mtime_ns, reason FROM files JOIN folders ON folder = folders.id "
            "WHERE path = ? AND NOT vanished",
            (os.fspath(folder),),
        )
        return {name: (Stamp(size, mtime_ns), reason) for name, size, mtime_ns, reason in rows}

    def put_files(self, files: Iterable[IndexedFile]) -> None:
        """Insert or replace files, and mark the series they belong to, now or before, as dirty; one transaction."""
        with self._db:
            for file in files:
                folder = self._folder(file.path.parent, file.root)
                where = (folder, file.path.name)
                before = self._db.execute("SELECT series FROM files WHERE folder = ? AND name = ?", where).fetchone()
                self._db.execute(
                    "INSERT OR REPLACE INTO files (folder, name, size, mtime_ns, kind, reason, "
                    "finding, series, record) VALUES (?,?,?,?,?,?,?,?,?)",
                    (
                        *where,
                        file.stamp.size,
                        file.stamp.mtime_ns,
                        file.kind,
                        file.reason,
                        file.finding,
                        file.series,
                        file.record,
                    ),
                )
                for series in {file.series, before[0] if before else None} - {None}:
                    self._db.execute("INSERT OR IGNORE INTO dirty VALUES (?)", (series,))

    def mark_vanished(self, folder: Path, names: Iterable[str]) -> None:
        """Remember that files are gone. What was stored from them stays: archives move files to tape, disks get
        unmounted.
        """
        with self._db:
            self._db.executemany(
                "UPDATE files SET vanished = 1 WHERE name = ? AND folder = (SELECT id FROM folders WHERE path = ?)",
                ((name, os.fspath(folder)) for name in names),
            )

    def folders_under(self, place: Path) -> list[Path]:
        """Folders with this beginning of their path, such as those of one archive."""
        text = os.fspath(place)
        rows = self._db.execute("SELECT path FROM folders WHERE substr(path, 1, ?) = ?", (len(text), text))
        return [Path(path) for (path,) in rows]

    def files(self, *, kind: str | None = None, series: str | None = None) -> Iterator[IndexedFile]:
        """Files that are there, of one kind or one series, in the order of their paths."""
        where, values = "NOT vanished", []
        for column, value in (("kind", kind), ("series", series)):
            if value is not None:
                where += f" AND {column} = ?"
                values.append(value)
        return self._files(where, values)

    def rejected_files(self) -> Iterator[IndexedFile]:
        """Files that were left out by themselves, before any series was looked at."""
        return self._files("NOT vanished AND reason IS NOT NULL", [])

    def find_files(self, name: str) -> Iterator[IndexedFile]:
        """Files of this name, or at this path."""
        path = Path(name)
        if path.is_absolute() or (len(path.parts) > 1 and path.parts[0].endswith(":")):
            return self._files("name = ? AND path = ?", [path.name, os.fspath(path.parent)])
        return self._files("name = ?", [name])

    def _files(self, where: str, values: list[str]) -> Iterator[IndexedFile]:
        rows = self._db.execute(
            "SELECT path, root, name, size, mtime_ns, kind, reason, finding, series, record FROM "
            "files JOIN folders ON folder = folders.id "
            f"WHERE {where} ORDER BY path, name",
            values,
        )
        for path, root, name, size, mtime_ns, kind, reason, finding, series, record in rows:
            code = Reason(reason) if reason else None
            yield IndexedFile(
                Path(path, name), Path(root), Stamp(size, mtime_ns), kind, code, finding or "", series, record
            )

    def _folder(self, path: Path, root: Path) -> int:
        text = os.fspath(path)
        found = self._db.execute("SELECT id FROM folders WHERE path = ?", (text,)).fetchone()
        if found is None:
            found = self._db.execute(
                "INSERT INTO folders (path, root) VALUES (?, ?) RETURNING id", (text, os.fspath(root))
            ).fetchone()
        return int(found[0])

    # Series and scans

    def dirty_series(self) -> list[str]:
        """Series of which a file is new or changed since its scans were planned."""
        return [series for (series,) in self._db.execute("SELECT series FROM dirty ORDER BY series")]

    def series_keys(self, beginning: str) -> list[str]:
        """Series whose key begins so."""
        rows = self._db.execute(
            "SELECT DISTINCT series FROM files WHERE series >= ? AND series < ?", (beginning, beginning + "\U0010ffff")
        )
        return [series for (series,) in rows]

    def mark_dirty(self, series: Iterable[str]) -> None:
        """Ask for these series to be planned again."""
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO dirty VALUES (?)", ((one,) for one in sorted(series)))

    def make_all_dirty(self) -> None:
        """Ask for every series to be planned again: the rules have changed."""
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO dirty SELECT DISTINCT series FROM files WHERE series IS NOT NULL")

    def plan(self, series: str, scans: Iterable[IndexedScan]) -> list[str]:
        """Replace the scans of one series and clear its dirt; returns the ids of scans that are no more.

        A scan whose source is unchanged keeps its outcome, so that it is not loaded again.
        """
        with self._db:
            before = {scan.scan_id: scan for scan in self.scans(series=series)}
            for scan in scans:
                old = before.pop(scan.scan_id, None)
                keep = old.outcome if old is not None and old.source == scan.source else None
                if old is None or keep is None or old.row != scan.row:
                    values = (scan.scan_id, series, scan.source, scan.row, scan.finding, keep)
                    self._db.execute("INSERT OR REPLACE INTO scans VALUES (?,?,?,?,?,?)", values)
            self._db.executemany("DELETE FROM scans WHERE scan_id = ?", ((scan_id,) for scan_id in before))
            self._db.execute("DELETE FROM dirty WHERE series = ?", (series,))
        return sorted(before)

    def scans(self, *, series: str | None = None) -> Iterator[IndexedScan]:
        """Scans of one series or of all, by scan id."""
        where = "" if series is None else "WHERE series = ?"
        rows = self._db.execute(f"SELECT * FROM scans {where} ORDER BY scan_id", [] if series is None else [series])
        return (IndexedScan(*row) for row in rows)

    def scans_to_load(self) -> list[str]:
        """Ids of scans that were planned and not loaded yet."""
        return [
            row[0] for row in self._db.execute("SELECT scan_id FROM scans WHERE outcome IS NULL AND source IS NOT NULL")
        ]

    def scan(self, scan_id: str) -> IndexedScan | None:
        """One scan by its id."""
        row = self._db.execute("SELECT * FROM scans WHERE scan_id = ?", (scan_id,)).fetchone()
        return IndexedScan(*row) if row else None

    def copies(self) -> Iterator[str]:
        """Ids of loaded scans that are voxel for voxel another one, which is kept."""
        return (scan_id for (scan_id,) in self._db.execute(_COPIES))

    def rows_by_study(self, modality: str) -> Iterator[tuple[str, str]]:
        """(study, row) of every scan of a modality that was planned to be loaded, study by study."""
        return ((study, row) for study, row in self._db.execute(_BY_STUDY, (modality,)))

    def mark(self, scan_ids: Iterable[str]) -> None:
        """Mark scans for as long as the index is open, on disk; marks of before are forgotten."""
        with self._db:
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS marks (scan_id TEXT PRIMARY KEY) WITHOUT ROWID")
            self._db.execute("DELETE FROM temp.marks")
            self._db.executemany("INSERT OR IGNORE INTO temp.marks VALUES (?)", ((one,) for one in scan_ids))

    def is_marked(self, scan_id: str) -> bool:
        """Whether a scan is among those that `mark` was told of last."""
        return self._db.execute("SELECT 1 FROM temp.marks WHERE scan_id = ?", (scan_id,)).fetchone() is not None

    def put_outcome(self, scan_id: str, outcome: str | None) -> None:
        """Write down what loading a scan came to; None asks for it to be loaded again."""
        with self._db:
            self._db.execute("UPDATE scans SET outcome = ? WHERE scan_id = ?", (outcome, scan_id))

    # Facts

    def fact(self, name: str) -> str | None:
        """A value written down by `put_fact`."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def put_fact(self, name: str, value: str) -> None:
        """Write down one named value."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


@contextmanager
def open_index(folder: Path) -> Iterator[Index]:
    """The index in a cohort's private folder, made where it does not exist.

    Raises DataError when it is damaged, of another format, or another ingest is writing it.
    """
    import fcntl

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = folder / "index.sqlite"
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another ingest is writing {folder.parent}. Wait until it has ended.") from error
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
        try:
            connection = _connect(path)
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{path} is damaged ({error}). Restore it from a copy, or ingest into a new folder."
            ) from error
        try:
            yield Index(connection)
        finally:
            connection.close()


@contextmanager
def read_index(folder: Path) -> Iterator[Index]:
    """The index in a cohort's private folder, for looking only. Raises DataError when it is missing or damaged."""
    path = folder / "index.sqlite"
    if not path.is_file():
        raise DataError(
            f"{folder} holds no private index. Run this where the cohort was ingested; the index never leaves."
        )
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        connection.execute("SELECT COUNT(*) FROM facts")
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path} is damaged ({error}). Restore it from a copy, or ingest into a new folder.") from error
    try:
        yield Index(connection)
    finally:
        connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    # The journal of WAL mode takes the mode of the database file, so nothing of it is readable by others.
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(_SCHEMA)
    index = Index(connection)
    found = index.fact("format")
    if found is None:
        index.put_fact("format", json.dumps(FORMAT))
    elif json.loads(found) != FORMAT:
        connection.close()
        raise DataError(f"{path} has format {found}; this medssl reads {FORMAT}. Use the medssl that wrote it.")
    return connection
