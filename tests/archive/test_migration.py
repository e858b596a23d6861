"""An index of format 2, as medssl 0.1 wrote it, is brought to the format of today without loading a scan again."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cohort_bytes import cohort_bytes
from written_dicom import Series, random_voxels
from written_labels import outline, put, structure_set, written
from written_nifti import labelled_folder

from medssl.archive.index.database import open_index, read_index
from medssl.cohort import Cohort, read_manifest
from medssl.errors import DataError
from medssl.ingestion import explain

# The tables of format 2, word for word.
TABLES = """
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
    outcome TEXT, kept TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS scans_of_series ON scans (series);
CREATE INDEX IF NOT EXISTS scans_to_load ON scans (scan_id) WHERE outcome IS NULL AND source IS NOT NULL;
"""
OLD_CODES = {
    "CONTAINER": "ARCHIVE",
    "F_CT_NOT_HU": "CT_NOT_HU",
    "F_PATIENT_ID_SUSPECT": "PATIENT_ID_SUSPECT",
    "F_DUPLICATES_DIFFER": "F_TWINS_DIFFER",
}


def old_code(code: str | None) -> str | None:
    return OLD_CODES.get(code, code)


def old_source(text: str | None) -> str | None:
    if text is None:
        return None
    plan = json.loads(text)
    kind = plan.pop("kind")
    if kind == "nifti" and not plan["voxels"]:
        del plan["voxels"]
    if kind == "dicom":
        plan["family"] = plan.pop("modality")
        for slice_ in plan["slices"]:
            slice_["twins"] = slice_.pop("duplicates")
    return json.dumps({kind: plan}, sort_keys=True, separators=(",", ":"))


def old_row(text: str) -> str:
    row = json.loads(text)
    unknown = {
        "split": "train",
        "content_hash": None,
        "labels": [],
        "status": "rejected" if row["reason"] else "accepted",
    }
    codes = {"reason": old_code(row["reason"]), "flags": [old_code(flag) for flag in row["flags"]]}
    return json.dumps(row | unknown | codes, sort_keys=True)


def old_outcome(text: str | None) -> str | None:
    if text is None:
        return None
    outcome = json.loads(text)
    for values in (outcome, outcome["trim"] or {}):
        if values:
            values["finding"] = values.pop("detail")
            values["flags"] = [old_code(flag) for flag in values["flags"]]
    outcome["label_finding"] = outcome.pop("label_detail")
    return json.dumps(outcome)


def old_scan(scan_id, series, load_plan, planned, detail, outcome, previous) -> tuple[str | None, ...]:
    kept = None
    if previous:
        names = ("scan_id", "series", "load_plan_json", "planned_json", "detail", "outcome_json", "previous_json")
        before = old_scan(*(json.loads(previous)[name] for name in names))
        kept = json.dumps(
            dict(zip(("scan_id", "series", "source", "row", "finding", "outcome", "kept"), before, strict=True))
        )
    return scan_id, series, old_source(load_plan), old_row(planned), detail, old_outcome(outcome), kept


def old_record(series: str | None, record: str | None) -> str | None:
    if record is None or not (series or "").startswith("label:"):
        return record
    header, *references = json.loads(record)
    return json.dumps([json.dumps(header, separators=(",", ":")), *references], separators=(",", ":"))


def make_old(cohort: Path) -> None:
    """Write the index and the manifest of a cohort as format 2 and schema 1 had them."""
    path = cohort / "private" / "index.sqlite"
    new = path.rename(path.with_name("new.sqlite"))
    with closing(sqlite3.connect(new)) as source, closing(sqlite3.connect(path)) as index, index:
        index.execute("PRAGMA journal_mode = WAL")
        index.executescript(TABLES)
        facts = dict(source.execute("SELECT name, value FROM metadata").fetchall())
        facts["settled"] = facts.pop("cohort_settings")
        facts["rules"] = facts["rules"].replace("container_", "archive_")
        facts["format"] = "2"
        del facts["medssl"]
        index.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        index.executemany("INSERT INTO folders VALUES (?,?,?)", source.execute("SELECT * FROM folders"))
        for number, folder, name, size, mtime_ns, kind, reason, detail, series, record, vanished in source.execute(
            "SELECT * FROM files"
        ).fetchall():
            kind = {"container": "archive"}.get(kind, kind)
            values = (number, folder, name, size, mtime_ns, kind, old_code(reason), detail, series)
            index.execute(
                "INSERT INTO files VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*values, old_record(series, record), vanished)
            )
        for row in source.execute("SELECT * FROM scans").fetchall():
            index.execute("INSERT INTO scans VALUES (?,?,?,?,?,?,?)", old_scan(*row))
    new.unlink()
    table = pq.read_table(cohort / "manifest.parquet")
    rows = table.to_pylist()
    for row in rows:
        row["reason"], row["flags"] = old_code(row["reason"]), [old_code(flag) for flag in row["flags"]]
    schema = table.schema.with_metadata({"medssl_schema": "1"})
    pq.write_table(type(table).from_pylist(rows, schema=schema), cohort / "manifest.parquet")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """DICOM with a structure set, a slice whose copies differ, no patient id, a zip; and NIfTI with labels."""
    root = labelled_folder(tmp_path / "a")
    series = Series(random_voxels((14, 11, 9), seed=1), patient="P1", study_uid="1.2.1", series_uid="1.3.1")
    images = written(series, root / "ct")
    corners = outline(series, [(2, 2), (9, 2), (9, 8), (2, 8)], 4)
    put(structure_set(images, [("liver", [corners])]), root / "rt" / "rs")
    nameless = Series(
        random_voxels((14, 11, 9), seed=2), patient="", study_uid="1.2.2", series_uid="1.3.2", intercept=0.0
    )
    paths = nameless.write(root / "nameless")
    (root / "copy").write_bytes(paths[8].read_bytes()[:-1] + b"\x07")
    (root / "more.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    return root


def test_migrated_index_loads_no_scan_again(tmp_path, archive, run_ingest):
    cohort = tmp_path / "cohort"
    first = run_ingest(archive)
    assert first.n_scans > 4
    assert {"CONTAINER", "SOP_UID_COLLISION"} <= first.reasons.keys()
    assert {"F_PATIENT_ID_SUSPECT", "F_CT_NOT_HU", "F_DUPLICATES_DIFFER"} <= first.flags.keys()
    expected, rows = cohort_bytes(cohort), set(read_manifest(cohort / "manifest.parquet"))

    make_old(cohort)
    assert set(read_manifest(cohort / "manifest.parquet")) == rows  # codes of an older manifest are read as today's
    assert len(Cohort.open(cohort).accepted()) == first.n_scans
    again = run_ingest(archive)
    assert (again.n_loaded, again.n_scans, again.reasons, again.flags) == (0, first.n_scans, first.reasons, first.flags)
    assert cohort_bytes(cohort) == expected
    with read_index(cohort / "private") as index:
        (label,) = explain(index, "rs", show_paths=False)
        assert label.what == "label"


def test_migrated_index_remembers_what_was_stored(tmp_path, archive, run_ingest):
    """A scan that waited to be loaded anew when the older medssl was stopped."""
    run_ingest(archive)
    cohort = tmp_path / "cohort"
    expected = cohort_bytes(cohort)
    with open_index(cohort / "private") as index:
        waiting = Cohort.open(cohort).accepted()[0].scan_id
        index.load_again(waiting)
    make_old(cohort)
    with open_index(cohort / "private") as index:
        assert index.scans_to_load() == [waiting]
        assert index.put_back(waiting)
    assert run_ingest(archive).n_loaded == 0
    assert cohort_bytes(cohort) == expected


def test_reading_older_index_says_how_to_migrate(tmp_path, archive, run_ingest):
    run_ingest(archive)
    make_old(tmp_path / "cohort")
    message = "has format 2, written by medssl 0.1 or earlier; .* brings it to this format without loading a scan again"
    with pytest.raises(DataError, match=message), read_index(tmp_path / "cohort" / "private"):
        pass


def test_index_of_newer_medssl_names_its_version(tmp_path):
    with open_index(tmp_path) as index:
        index.put_metadata("format", "4")
        index.put_metadata("medssl", "9.1.0")
    for opened in (open_index, read_index):
        with (
            pytest.raises(
                DataError, match=r"has format 4, written by medssl 9\.1\.0; .* Install that medssl or a later"
            ),
            opened(tmp_path),
        ):
            pass


def test_interrupted_migration_leaves_the_older_index(tmp_path, archive, run_ingest, monkeypatch):
    run_ingest(archive)
    make_old(tmp_path / "cohort")
    private = tmp_path / "cohort" / "private"
    with monkeypatch.context() as patched:
        patched.setattr("medssl.archive.index.migration._planned", lambda row: 1 / 0)
        with pytest.raises(ZeroDivisionError), open_index(private):
            pass
    with closing(sqlite3.connect(private / "index.sqlite")) as index:
        assert index.execute("SELECT value FROM facts WHERE name = 'format'").fetchone() == ("2",)
        assert index.execute("SELECT COUNT(*) FROM scans WHERE finding IS NOT NULL").fetchone()[0] > 4
    assert run_ingest(archive).n_loaded == 0
