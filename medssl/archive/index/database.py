"""The private index: every file that was seen and every scan that was planned, with paths and real identifiers.

One SQLite file (mode 0600 in a folder of mode 0700). Every change is one transaction, so a run that was killed at any
moment is continued by running it again. Memory does not grow with the archive: rows are read as they are needed.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from medssl.archive.index.entries import IndexedFile, IndexedScan
from medssl.archive.index.path_text import path_text, text_path
from medssl.archive.index.planned_scan import OUTCOMES, PLANNED_SCANS, Outcome, PlannedScan
from medssl.archive.index.schema import BY_STUDY, DUPLICATES, check_index, create_tables
from medssl.archive.sources.location import is_remote
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.reasons import Reason
from medssl.errors import DataError

# What may be over by the next run, and is tried again then.
TRANSIENT_REASONS = frozenset({Reason.IN_FLUX, Reason.IO_ERROR, Reason.TIMEOUT})


class Index:
    """The tables behind one cohort."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    # Files

    def known_files(self, folder: Path) -> dict[str, tuple[FileStamp, str | None]]:
        """Files of one folder that an earlier run saw: stamp and reason by name. Vanished ones are not among them."""
        rows = self._db.execute(
            "SELECT name, size, mtime_ns, reason FROM files JOIN folders ON folder = folders.id "
            "WHERE path = ? AND NOT vanished",
            (path_text(folder),),
        )
        return {text_path(name).name: (FileStamp(size, mtime_ns), reason) for name, size, mtime_ns, reason in rows}

    def put_files(self, files: Iterable[IndexedFile]) -> None:
        """Insert or replace files, and mark the series they belong to, now or before, as dirty; one transaction."""
        with self._db:
            for file in files:
                folder = self._folder(file.path.parent, file.root)
                where = (folder, path_text(file.path.name))
                before = self._db.execute("SELECT series FROM files WHERE folder = ? AND name = ?", where).fetchone()
                detail = path_text(file.detail)
                self._db.execute(
                    "INSERT OR REPLACE INTO files (folder, name, size, mtime_ns, kind, reason, "
                    "detail, series, record) VALUES (?,?,?,?,?,?,?,?,?)",
                    (*where, *file.stamp, file.kind, file.reason, detail, file.series, file.record),
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
                ((path_text(name), path_text(folder)) for name in names),
            )

    def folders_under(self, folder: Path) -> Iterator[Path]:
        """A folder and those below it, such as the ones of an archive, as far as files are there. Files may be marked
        meanwhile.
        """
        text = path_text(folder)
        below = text.rstrip("/") + "/"
        last = 0
        while True:
            rows = self._db.execute(
                "SELECT id, path FROM folders WHERE id > ? AND (path = ? OR substr(path, 1, ?) = ?) AND EXISTS "
                "(SELECT 1 FROM files WHERE folder = folders.id AND NOT vanished) ORDER BY id LIMIT 1000",
                (last, text, len(below), below),
            ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            for _, path in rows:
                yield text_path(path)

    def folders_to_plan(self) -> list[Path]:
        """Folders with files that are there and are about to be planned: of new or changed series, and all NIfTI."""
        rows = self._db.execute(
            "SELECT path FROM folders WHERE id IN (SELECT folder FROM dirty JOIN files USING (series) "
            "WHERE NOT vanished UNION SELECT folder FROM files WHERE kind IN ('nifti', 'dataset') AND NOT vanished)"
        )
        return [text_path(path) for (path,) in rows]

    def files(self, *, kind: str | None = None, series: str | None = None) -> Iterator[IndexedFile]:
        """Files that are there, of one kind or one series, in the order of their paths."""
        where, values = "NOT vanished", []
        for column, value in (("kind", kind), ("series", series)):
            if value is not None:
                where += f" AND {column} = ?"
                values.append(value)
        return self._files(where, values)

    def vanished_files(self, *, kind: str | None = None, series: str | None = None) -> Iterator[IndexedFile]:
        """Files that are gone, of one kind or one series, as they were when they were seen last."""
        column, value = ("kind", kind) if kind is not None else ("series", series)
        return self._files(f"vanished AND {column} = ?", [value or ""])

    def rejected_files(self) -> Iterator[IndexedFile]:
        """Files that were left out by themselves, before any series was looked at."""
        return self._files("NOT vanished AND reason IS NOT NULL", [])

    def find_files(self, name: str) -> Iterator[IndexedFile]:
        """Files of this name, or at this path."""
        path = Path(name)
        if path.is_absolute() or is_remote(path):
            return self._files("name = ? AND path = ?", [path_text(path.name), path_text(path.parent)])
        return self._files("name = ?", [path_text(name)])

    def _files(self, where: str, values: list[str]) -> Iterator[IndexedFile]:
        rows = self._db.execute(
            "SELECT path, root, name, size, mtime_ns, kind, reason, detail, series, record FROM "
            "files JOIN folders ON folder = folders.id "
            f"WHERE {where} ORDER BY path, name",
            values,
        )
        for path, root, name, size, mtime_ns, kind, reason, detail, series, record in rows:
            code = Reason(reason) if reason else None
            file = Path(text_path(path), text_path(name))
            yield IndexedFile(
                file, text_path(root), FileStamp(size, mtime_ns), kind, code, detail or "", series, record
            )

    def _folder(self, path: Path, root: Path) -> int:
        text = path_text(path)
        row = self._db.execute("SELECT id FROM folders WHERE path = ?", (text,)).fetchone()
        if row is None:
            row = self._db.execute(
                "INSERT INTO folders (path, root) VALUES (?, ?) RETURNING id", (text, path_text(root))
            ).fetchone()
        return int(row[0])

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
            self._db.executemany("INSERT OR IGNORE INTO dirty VALUES (?)", ((key,) for key in sorted(series)))

    def make_all_dirty(self) -> None:
        """Ask for every series to be planned again: the rules have changed."""
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO dirty SELECT DISTINCT series FROM files WHERE series IS NOT NULL")

    def plan(self, series: str, scans: Iterable[IndexedScan]) -> list[str]:
        """Replace the scans of one series and clear its dirt; returns the ids of those that are stored no more.

        A scan whose load plan is unchanged keeps its outcome, so that it is not loaded again. One that must be loaded
        again remembers what was stored, for `put_back`.
        """
        with self._db:
            before = {scan.scan_id: scan for scan in self.scans(series=series)}
            unloaded = []
            for scan in scans:
                old = before.pop(scan.scan_id, None)
                if old is not None and scan.load_plan_json is None and old.load_plan_json is not None:
                    unloaded.append(scan.scan_id)
                new = scan if old is None else old.replanned(scan)
                if new != old:
                    self._put_scan(new)
            self._db.executemany("DELETE FROM scans WHERE scan_id = ?", ((scan_id,) for scan_id in before))
            self._db.execute("DELETE FROM dirty WHERE series = ?", (series,))
        return sorted([*before, *unloaded])

    def move_scan(self, scan_id: str, series: str) -> None:
        """The scan is of another series from now on: its file has another place."""
        with self._db:
            self._db.execute("UPDATE scans SET series = ? WHERE scan_id = ?", (series, scan_id))

    def scans(self, *, series: str | None = None) -> Iterator[IndexedScan]:
        """Scans of one series or of all, by scan id."""
        where = "" if series is None else "WHERE series = ?"
        rows = self._db.execute(f"SELECT * FROM scans {where} ORDER BY scan_id", [] if series is None else [series])
        return (IndexedScan(*row) for row in rows)

    def has_scans(self, beginning: str) -> bool:
        """Whether there is a scan of a series whose key begins so."""
        where = (beginning, beginning + "\U0010ffff")
        return self._db.execute("SELECT 1 FROM scans WHERE series >= ? AND series < ?", where).fetchone() is not None

    def scans_to_load(self) -> list[str]:
        """Ids of scans that were planned and not loaded yet."""
        rows = self._db.execute("SELECT scan_id FROM scans WHERE outcome IS NULL AND load_plan IS NOT NULL")
        return [scan_id for (scan_id,) in rows]

    def scan(self, scan_id: str) -> IndexedScan | None:
        """One scan by its id."""
        row = self._db.execute("SELECT * FROM scans WHERE scan_id = ?", (scan_id,)).fetchone()
        return IndexedScan(*row) if row else None

    def duplicates(self) -> set[str]:
        """Ids of loaded scans that are voxel for voxel another one, which stays in the store."""
        return {scan_id for (scan_id,) in self._db.execute(DUPLICATES)}

    def planned_by_study(self, modality: str) -> Iterator[tuple[str, PlannedScan]]:
        """(study, scan) for every scan of a modality that is to be loaded or was, study by study."""
        rows = self._db.execute(BY_STUDY, (modality,))
        return ((study, PLANNED_SCANS.validate_json(planned)) for study, planned in rows)

    def mark(self, scan_ids: Iterable[str]) -> None:
        """Mark scans for as long as the index is open, on disk; marks of before are forgotten."""
        with self._db:
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS marks (scan_id TEXT PRIMARY KEY) WITHOUT ROWID")
            self._db.execute("DELETE FROM temp.marks")
            self._db.executemany("INSERT OR IGNORE INTO temp.marks VALUES (?)", ((scan_id,) for scan_id in scan_ids))

    def is_marked(self, scan_id: str) -> bool:
        """Whether a scan is among those that `mark` was told of last."""
        return self._db.execute("SELECT 1 FROM temp.marks WHERE scan_id = ?", (scan_id,)).fetchone() is not None

    def put_outcome(self, scan_id: str, outcome: Outcome) -> None:
        """Write down what loading a scan gave."""
        text = OUTCOMES.dump_json(outcome).decode()
        with self._db:
            self._db.execute("UPDATE scans SET outcome = ?, previous = NULL WHERE scan_id = ?", (text, scan_id))

    def load_again(self, scan_id: str) -> None:
        """Ask for a scan to be loaded again."""
        scan = self.scan(scan_id)
        if scan is not None:
            previous = scan.stored.as_previous() if scan.stored else None
            with self._db:
                self._put_scan(replace(scan, outcome_json=None, previous_json=previous))

    def put_back(self, scan_id: str) -> bool:
        """Let a scan be what it was when it was stored; False where it never was."""
        scan = self.scan(scan_id)
        stored = scan.stored if scan else None
        if scan is None or stored is None:
            return False
        with self._db:
            self._put_scan(replace(stored, series=scan.series, previous_json=None))
        return True

    def _put_scan(self, scan: IndexedScan) -> None:
        values = (
            scan.scan_id, scan.series, scan.load_plan_json, scan.planned_json, scan.detail, scan.outcome_json,
            scan.previous_json,
        )  # fmt: skip
        self._db.execute("INSERT OR REPLACE INTO scans VALUES (?,?,?,?,?,?,?)", values)

    # Values that hold for the whole index

    def metadata(self, name: str) -> str | None:
        """A value written down by `put_metadata`."""
        row = self._db.execute("SELECT value FROM metadata WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def put_metadata(self, name: str, value: str) -> None:
        """Write down one named value."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO metadata VALUES (?, ?)", (name, value))


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
        with _opened(path, path.resolve().as_uri()) as connection:
            # The journal of WAL mode takes the mode of the database file, so nothing of it is readable by others.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            create_tables(connection)
            check_index(connection, path)
            yield Index(connection)


@contextmanager
def read_index(folder: Path) -> Iterator[Index]:
    """The index in a cohort's private folder, for looking only. Raises DataError when it is missing or damaged."""
    path = folder / "index.sqlite"
    if not path.is_file():
        raise DataError(
            f"{folder} holds no private index. Run this where the cohort was ingested; the index never leaves."
        )
    with _opened(path, f"{path.resolve().as_uri()}?mode=ro") as connection:
        check_index(connection, path)
        yield Index(connection)


@contextmanager
def _opened(path: Path, uri: str) -> Iterator[sqlite3.Connection]:
    """A connection until it is closed. Damage is explained in the same words wherever in the file it shows."""
    connection = sqlite3.connect(uri, uri=True)
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorname", "")  # an error of the module itself has none
        if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise DataError(
                f"{path} is damaged ({error}). Restore it from a copy, or ingest into a new folder."
            ) from error
        if code.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            raise DataError(f"{path} cannot be opened ({error}). Check its permissions.") from error
        if code.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")):
            raise DataError(f"{path} cannot be written ({error}). Check the disk and its space.") from error
        raise
    finally:
        connection.close()
