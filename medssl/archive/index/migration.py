"""An index that an earlier medssl wrote, brought to the format of this one; what cannot be brought is refused."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medssl.archive.index.entries import INDEXED_SCANS, IndexedScan
from medssl.archive.index.load_plan import LOAD_PLANS
from medssl.archive.index.path_text import path_text
from medssl.archive.index.planned_scan import OUTCOMES, PLANNED_SCANS
from medssl.archive.index.schema import SCHEMA
from medssl.cohort.reasons import RENAMED_CODES
from medssl.errors import DataError

FORMAT = 3
_OLDEST = 2
# Limits whose names are part of the rules that a cohort was planned by.
_RENAMED_LIMITS = {f"archive_{name}": f"container_{name}" for name in ("seconds", "members", "ratio")}


def prepare_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new index, or bring those of an older one to this format, in one transaction.

    Raises DataError as `check_format` does, but for what can be migrated.
    """
    stored = _format(connection)
    if stored is None:
        with _transaction(connection):
            _create(connection)
    elif stored == _OLDEST:
        with _transaction(connection):
            _from_2(connection)
    check_format(connection, path)


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raise DataError where an index is of another format than this medssl reads."""
    stored = _format(connection)
    if stored == FORMAT:
        return
    if stored is None:
        raise DataError(f"{path} is damaged (it has no format). Restore it from a copy, or ingest into a new folder.")
    if stored == _OLDEST:
        remedy = "`medssl ingest` with its sources brings it to this format without loading a scan again"
    elif stored > FORMAT:
        remedy = "Install that medssl or a later one"
    else:
        remedy = "Ingest into a new folder"
    writer = _value(connection, "metadata", "medssl") if stored > FORMAT else None
    raise DataError(
        f"{path} has format {stored}, written by medssl {writer or '0.1 or earlier'}; medssl {version('medssl')} reads "
        f"{FORMAT}. {remedy}."
    )


def _format(connection: sqlite3.Connection) -> int | None:
    """The format of an index; None where it has no tables yet."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table in ("metadata", "facts"):
        if table in tables and (text := _value(connection, table, "format")) is not None:
            return int(json.loads(text))
    return None


def _value(connection: sqlite3.Connection, table: str, name: str) -> str | None:
    row = connection.execute(f"SELECT value FROM {table} WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements or none, those that change tables included, which the module itself would commit one by one."""
    before, connection.isolation_level = connection.isolation_level, None
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    else:
        connection.execute("COMMIT")
    finally:
        connection.isolation_level = before


def _create(connection: sqlite3.Connection) -> None:
    for statement in SCHEMA:
        connection.execute(statement)
    values = {"format": json.dumps(FORMAT), "medssl": version("medssl")}
    connection.executemany("INSERT OR REPLACE INTO metadata VALUES (?, ?)", values.items())


def _from_2(connection: sqlite3.Connection) -> None:
    """Format 2: `finding` for `detail`, manifest rows in place of planned scans, archives for containers."""
    for index in ("scans_of_series", "scans_to_load"):
        connection.execute(f"DROP INDEX {index}")
    connection.execute("ALTER TABLE scans RENAME TO scans_2")
    connection.execute("ALTER TABLE facts RENAME TO metadata")
    connection.execute("ALTER TABLE files RENAME COLUMN finding TO detail")
    _create(connection)
    for row in connection.execute("SELECT scan_id, series, source, row, finding, outcome, kept FROM scans_2"):
        scan = _scan_from_2(*row)
        values = (
            scan.scan_id, scan.series, scan.load_plan_json, scan.planned_json, scan.detail, scan.outcome_json,
            scan.previous_json,
        )  # fmt: skip
        connection.execute("INSERT INTO scans VALUES (?,?,?,?,?,?,?)", values)
    connection.execute("DROP TABLE scans_2")
    connection.execute("UPDATE files SET kind = 'container' WHERE kind = 'archive'")
    labels = connection.execute("SELECT id, record FROM files WHERE series LIKE 'label:%' AND record IS NOT NULL")
    for number, text in labels.fetchall():
        record, *references = json.loads(text)  # the header record was JSON within JSON
        connection.execute(
            "UPDATE files SET record = ? WHERE id = ?", (json.dumps([json.loads(record), *references]), number)
        )
    connection.executemany("UPDATE files SET reason = ?2 WHERE reason = ?1", RENAMED_CODES.items())
    connection.execute("UPDATE metadata SET name = 'cohort_settings' WHERE name = 'settled'")
    rules = _value(connection, "metadata", "rules") or ""
    for old, new in _RENAMED_LIMITS.items():
        rules = rules.replace(f"{old}=", f"{new}=")
    connection.execute("UPDATE metadata SET value = ? WHERE name = 'rules'", (rules,))


def _scan_from_2(
    scan_id: str, series: str, source: str | None, row: str, finding: str, outcome: str | None, kept: str | None
) -> IndexedScan:
    before = _scan_from_2(**json.loads(kept)) if kept else None
    return IndexedScan(
        scan_id,
        series,
        LOAD_PLANS.dump_json(LOAD_PLANS.validate_python(_load_plan(json.loads(source)))).decode() if source else None,
        PLANNED_SCANS.dump_json(PLANNED_SCANS.validate_python(_planned(json.loads(row)))).decode(),
        finding,
        OUTCOMES.dump_json(OUTCOMES.validate_python(_outcome(json.loads(outcome)))).decode() if outcome else None,
        INDEXED_SCANS.dump_json(before).decode() if before else None,
    )


def _load_plan(source: dict[str, Any]) -> dict[str, Any]:
    ((kind, plan),) = source.items()
    if kind == "dicom":
        plan["modality"] = plan.pop("family")
        for slice_ in plan["slices"]:
            slice_["duplicates"] = slice_.pop("twins")
        stamps = [item["file"] for item in (*plan["files"], *plan.get("labels", ()))]
    else:
        stamps = [stamp for stamp in (plan["image"], plan["label"], *plan.get("voxels", ())) if stamp]
    for stamp in stamps:
        stamp["path"] = path_text(stamp["path"])
    return {**plan, "kind": kind}


def _planned(row: dict[str, Any]) -> dict[str, Any]:
    columns = {name: row[name] for name in row if name not in ("status", "split", "content_hash", "labels")}
    return {**columns, "reason": _code(row["reason"]), "flags": [_code(flag) for flag in row["flags"]]}


def _outcome(outcome: dict[str, Any]) -> dict[str, Any]:
    lost = outcome.get("trim")
    return {
        "reason": _code(outcome["reason"]),
        "detail": path_text(outcome["finding"]),
        "flags": [_code(flag) for flag in outcome["flags"]],
        "labels": outcome["labels"],
        "content_hash": outcome["content_hash"],
        "label_reason": _code(outcome["label_reason"]),
        "label_detail": path_text(outcome["label_finding"]),
        "trim": _trim(lost) if lost else None,
    }


def _trim(lost: dict[str, Any]) -> dict[str, Any]:
    detail, flags = path_text(lost["finding"]), [_code(flag) for flag in lost["flags"]]
    unchanged = {name: lost[name] for name in ("reason", "shape", "affine_ras_mm", "n_files", "n_left_out")}
    return {**unchanged, "detail": detail, "flags": flags}


def _code(code: str | None) -> str | None:
    return None if code is None else RENAMED_CODES.get(code, code)
