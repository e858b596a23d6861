"""Copies of a slice that only their pixels tell apart: that slice goes, and the scan stays where the rest is one."""

from pathlib import Path

import numpy as np
import pytest
from planned_scans import accepted, assert_is, planned
from written_dicom import Series, random_voxels, save

from medssl.archive.index.database import read_index
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.scan import load_planned_scan
from medssl.cohort.cohort import Cohort
from medssl.geometry import to_ras
from medssl.ingestion.explanation import explain
from medssl.store.volumes import open_volume

ONE_TOO_MANY = {"F_DUP_POSITION", "F_DUPLICATES_DIFFER", "F_TRIMMED"}


def written(folder: Path, *doubled: int, same_instance: bool = False) -> Series:
    """Twelve slices, and of some a copy with other pixels and the same header."""
    series = Series(random_voxels((14, 11, 12)))
    for k in range(12):
        ds = series.dataset(k)
        (folder / "a").mkdir(parents=True, exist_ok=True)
        save(ds, folder / "a" / f"{k}")
        if k in doubled:
            (folder / "b").mkdir(exist_ok=True)
            other = series.dataset(k)
            if same_instance:
                other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            other.PixelData = bytes(len(ds.PixelData))
            save(other, folder / "b" / f"{k}")
    return series


def test_trim_keeps_longest_run_beside_doubtful_slice(tmp_path, run_ingest):
    series = written(tmp_path / "s", 3)
    ((_, volume),) = accepted(tmp_path / "s")
    assert_is(volume, series, slice(4, 12))
    report = run_ingest(tmp_path / "s")
    assert (report.n_scans, report.reasons) == (1, {"DUPLICATE_POSITION": 1})
    rows = Cohort.open(tmp_path / "cohort").rows
    (kept,), (left,) = [r for r in rows if r.accepted], [r for r in rows if not r.accepted]
    assert (kept.shape, kept.n_files, set(kept.flags)) == ((14, 11, 8), 8, ONE_TOO_MANY)
    np.testing.assert_allclose(np.reshape(kept.affine_ras_mm, (4, 4)), volume.affine_ras_mm, atol=1e-9)
    assert (left.series_id, left.n_files, left.shape) == (kept.series_id, 5, None)
    stored = open_volume(tmp_path / "cohort" / "store", kept.scan_id)
    assert stored.shape == to_ras(volume).shape[::-1]
    assert run_ingest(tmp_path / "s").n_loaded == 0


def test_trim_removes_only_a_doubtful_last_slice(tmp_path, run_ingest):
    series = written(tmp_path / "s", 11, same_instance=True)
    ((_, volume),) = accepted(tmp_path / "s")
    assert_is(volume, series, slice(0, 11))
    assert run_ingest(tmp_path / "s").reasons == {"SOP_UID_COLLISION": 1}
    rows = Cohort.open(tmp_path / "cohort").rows
    (kept,), (left,) = [r for r in rows if r.accepted], [r for r in rows if not r.accepted]
    assert (kept.n_files, left.n_files) == (11, 2)
    assert set(kept.flags) == {"F_DUP_INSTANCE", "F_DUPLICATES_DIFFER"}
    with read_index(tmp_path / "cohort" / "private") as index:
        (told, *_) = explain(index, kept.scan_id, show_paths=False)
    assert "copies of 1 of 12 slices differ in their pixels; slices 1 to 11 are used (SOP_UID_COLLISION)" in told.detail


def test_trim_rejects_scan_below_min_slices(tmp_path, run_ingest):
    """The same scan is accepted when a smaller minimum is requested."""
    written(tmp_path / "s", 2, 4, 6, 9)
    assert run_ingest(tmp_path / "s").reasons == {"DUPLICATE_POSITION": 1}
    assert run_ingest(tmp_path / "s").n_loaded == 0
    assert run_ingest(tmp_path / "s", min_slices=2).n_scans == 1
    (kept,) = Cohort.open(tmp_path / "cohort").accepted()
    assert kept.shape == (14, 11, 2)


def test_trim_rejects_two_indistinguishable_acquisitions(tmp_path):
    written(tmp_path / "s", *range(12))
    ((_, plan),) = planned(tmp_path / "s")
    with pytest.raises(Rejected, match="copies of 12 of 12 slices differ in their pixels; 0 consecutive"):
        load_planned_scan(plan, limits=Limits(field_of_view_mm=5.0))


def test_trim_checks_geometry_of_remaining_slices(tmp_path):
    """In the plane the scan is below the least field of view, so its length along the slices is what carried it."""
    series = written(tmp_path / "s", 6)
    ((_, plan),) = planned(tmp_path / "s")
    along_mm = 12 * float(np.linalg.norm(series.step_mm))
    with pytest.raises(Rejected, match="OUT_OF_RANGE"):
        load_planned_scan(plan, limits=Limits(field_of_view_mm=along_mm - 1))
