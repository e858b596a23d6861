"""A file of a series whose compressed pixels do not decode costs itself, and nothing where another copy is sound."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from planned_scans import LIMITS, accepted, assert_is, planned
from pydicom.uid import RLELossless
from written_dicom import Series, random_voxels

from medssl.archive.index.database import read_index
from medssl.archive.voxels.scan import load_planned_scan
from medssl.cohort.cohort import Cohort
from medssl.errors import DataError
from medssl.ingestion.explanation import explain
from medssl.ingestion.one_scan import load_scan


def compressed(folder: Path, count: int = 12) -> tuple[Series, list[Path]]:
    """A series of RLE slices large enough for `load_scan`."""
    series = Series(random_voxels((20, 15, count)), row_spacing_mm=3.0, column_spacing_mm=3.0)
    return series, series.write(folder, lambda ds, k: ds.compress(RLELossless))


def copied(path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())
    return folder / path.name


def spoil(path: Path) -> None:
    """The segments of the frame no longer hold its pixels."""
    data = path.read_bytes()
    path.write_bytes(data[:-400] + b"\xff" * 400)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def rows_of(cohort: Path):
    rows = Cohort.open(cohort).rows
    return [row for row in rows if row.accepted], [row for row in rows if not row.accepted]


@pytest.mark.parametrize("damage", [spoil, cut])
@pytest.mark.parametrize("folders", [("a", "b"), ("b", "a")])
def test_damaged_copy_is_replaced_by_sound_one(tmp_path, run_ingest, damage, folders):
    series, paths = compressed(tmp_path / "s" / folders[0])
    damage(copied(paths[5], tmp_path / "s" / folders[1]))
    ((_, volume),) = accepted(tmp_path / "s")
    assert_is(volume, series)
    report = run_ingest(tmp_path / "s")
    ((kept,), (left,)) = rows_of(tmp_path / "cohort")
    assert (report.n_scans, kept.shape, kept.n_files) == (1, (20, 15, 12), 12)
    assert set(kept.flags) == {"F_DUP_INSTANCE", "F_FILE_DAMAGED"}
    assert (left.n_files, left.reason) == (1, "BAD_PIXELS" if damage is spoil else "TRUNCATED")
    assert run_ingest(tmp_path / "s").n_loaded == 0


@pytest.mark.parametrize(("damage", "reason"), [(spoil, "BAD_PIXELS"), (cut, "TRUNCATED")])
def test_damaged_last_slice_is_left_out_alone(tmp_path, run_ingest, damage, reason):
    series, paths = compressed(tmp_path / "s")
    damage(paths[11])
    ((_, volume),) = accepted(tmp_path / "s")
    assert_is(volume, series, slice(0, 11))
    assert run_ingest(tmp_path / "s").reasons == {reason: 1}
    ((kept,), (left,)) = rows_of(tmp_path / "cohort")
    assert (kept.shape, kept.n_files, kept.flags) == ((20, 15, 11), 11, ("F_FILE_DAMAGED",))
    assert (left.n_files, left.series_id) == (1, kept.series_id)
    with read_index(tmp_path / "cohort" / "private") as index:
        (told, *_) = explain(index, kept.scan_id, show_paths=False)
    assert "1 file is damaged" in told.detail
    assert f"which makes 1 of 12 slices unusable; slices 1 to 11 are used ({reason})" in told.detail


def test_damaged_inner_slice_leaves_longest_run(tmp_path, run_ingest):
    series, paths = compressed(tmp_path / "s")
    spoil(paths[3])
    ((_, volume),) = accepted(tmp_path / "s")
    assert_is(volume, series, slice(4, 12))
    run_ingest(tmp_path / "s")
    ((kept,), (left,)) = rows_of(tmp_path / "cohort")
    assert set(kept.flags) == {"F_FILE_DAMAGED", "F_TRIMMED"}
    assert (kept.n_files, left.n_files) == (8, 4)


def test_damaged_scan_is_rejected_below_min_slices(tmp_path, run_ingest):
    """The same scan is accepted when a smaller minimum is requested."""
    _, paths = compressed(tmp_path / "s")
    for k in (2, 4, 6, 9):
        spoil(paths[k])
    assert run_ingest(tmp_path / "s").reasons == {"BAD_PIXELS": 1}
    assert run_ingest(tmp_path / "s", min_slices=2).n_scans == 1


def test_damaged_copies_and_differing_copies_are_distinct(tmp_path):
    """Two damaged copies make a damaged slice; two sound copies that differ make a doubtful one."""
    series, paths = compressed(tmp_path / "s" / "a")
    for k in (0, 11):
        spoil(copied(paths[k], tmp_path / "s" / "b"))
        copied(paths[k], tmp_path / "s" / "c")
    spoil(paths[0])
    spoil(tmp_path / "s" / "c" / paths[0].name)
    other = pydicom.dcmread(paths[11])
    other.compress(RLELossless, np.zeros((15, 20), np.uint16), generate_instance_uid=False)
    other.save_as(tmp_path / "s" / "c" / paths[11].name)
    ((_, plan),) = planned(tmp_path / "s")
    loaded = load_planned_scan(plan, limits=LIMITS)
    assert_is(loaded.volume, series, slice(1, 11))
    assert (loaded.trim.n_files, loaded.trim.n_left_out) == (10, 6)
    assert loaded.trim.detail.startswith("copies of 1 of 12 slices differ in their pixels, 4 files are damaged")


def test_load_scan_rejects_damaged_slices(tmp_path):
    series, paths = compressed(tmp_path / "s" / "a")
    spoil(copied(paths[11], tmp_path / "s" / "b"))
    assert_is(load_scan(tmp_path / "s"), series)
    spoil(paths[11])
    with pytest.raises(DataError, match=r"makes 1 of 12 slices unusable; slices 1 to 11 are used \(BAD_PIXELS\)"):
        load_scan(tmp_path / "s")
