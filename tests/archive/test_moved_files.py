"""Archives that move, are unpacked or are not mounted: what is stored stays, and is read from its new place."""

import errno
import json
import os
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from written_dicom import Series, random_voxels
from written_nifti import labelled_folder, nifti, scan_voxels

from medssl.archive.index.database import read_index
from medssl.archive.index.planned_scan import Outcome
from medssl.archive.sources import walk as discover
from medssl.cohort.cohort import Cohort
from medssl.cohort.reasons import Reason
from medssl.ingestion import archive_to_cohort, planning
from medssl.ingestion.explanation import explain
from medssl.store.volumes import stored_scan_ids


def state(cohort: Path) -> tuple[list[tuple[str, str, str]], str]:
    """(id, patient, content) of the accepted scans, all of them stored; and the digest of the whole manifest."""
    opened = Cohort.open(cohort)
    assert set(stored_scan_ids(opened.store)) == {row.scan_id for row in opened.accepted()}
    return [(row.scan_id, row.patient_id, row.content_hash) for row in opened.accepted()], opened.digest


def read_from(cohort: Path) -> set[Path]:
    with read_index(cohort / "private") as index:
        plans = [scan.load_plan for scan in index.scans() if scan.load_plan]
    return {Path(file.file.path).parent for plan in plans for file in plan.files}


def test_series_in_renamed_folder_is_same_scan(tmp_path, run_ingest):
    Series(random_voxels()).write(tmp_path / "a" / "2019" / "s")
    run_ingest(tmp_path / "a")
    before = state(tmp_path / "cohort")
    (tmp_path / "a" / "2019").rename(tmp_path / "a" / "2019-done")
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.flags) == (1, {})
    assert state(tmp_path / "cohort") == before
    assert read_from(tmp_path / "cohort") == {tmp_path / "a" / "2019-done" / "s"}
    assert run_ingest(tmp_path / "a").n_loaded == 0


def test_archive_mounted_elsewhere_is_same(tmp_path, run_ingest):
    Series(random_voxels()).write(tmp_path / "m1" / "s")
    labelled_folder(tmp_path / "m1" / "n")
    nifti(tmp_path / "m1" / "test.nii.gz", scan_voxels(9))  # whose name stands for no patient
    run_ingest(tmp_path / "m1")
    before, _ = state(tmp_path / "cohort")
    (tmp_path / "m1").rename(tmp_path / "m2")
    report = run_ingest(tmp_path / "m2")
    assert (report.n_scans, report.n_labelled, report.reasons) == (6, 3, {})
    assert state(tmp_path / "cohort")[0] == before
    assert run_ingest(tmp_path / "m2").n_loaded == 0
    (tmp_path / "m2").rename(tmp_path / "m1")
    assert run_ingest(tmp_path / "m1").reasons == {}
    assert state(tmp_path / "cohort")[0] == before


def test_zip_renamed_then_unpacked_is_same_scan(tmp_path, run_ingest):
    Series(random_voxels()).write(tmp_path / "s")
    (tmp_path / "a").mkdir()
    with zipfile.ZipFile(tmp_path / "a" / "x.zip", "w") as packed:
        for path in sorted((tmp_path / "s").iterdir()):
            packed.write(path, f"s/{path.name}")
    run_ingest(tmp_path / "a", containers=True)
    before = state(tmp_path / "cohort")
    (tmp_path / "a" / "x.zip").rename(tmp_path / "a" / "y.zip")
    assert run_ingest(tmp_path / "a", containers=True).reasons == {}
    assert state(tmp_path / "cohort") == before
    (tmp_path / "s").rename(tmp_path / "a" / "s")
    (tmp_path / "a" / "y.zip").unlink()
    assert run_ingest(tmp_path / "a", containers=True).reasons == {}
    assert state(tmp_path / "cohort") == before
    assert read_from(tmp_path / "cohort") == {tmp_path / "a" / "s"}


def test_renamed_dataset_keeps_scans_and_labels(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a" / "Task01")
    facts = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "tumour"}}
    (root / "dataset.json").write_text(json.dumps(facts))
    nifti(tmp_path / "b" / "new.nii.gz", scan_voxels(77))
    run_ingest(tmp_path / "a")
    before, _ = state(tmp_path / "cohort")
    root.rename(tmp_path / "a" / "Task01_Liver")
    assert run_ingest(tmp_path / "b").n_scans == 5  # another source, while nobody looks where this one went
    assert Cohort.open(tmp_path / "cohort").label_names[1] == "liver"
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.n_labelled, report.reasons) == (5, 3, {})
    assert set(before) < set(state(tmp_path / "cohort")[0])
    assert Cohort.open(tmp_path / "cohort").label_names == {0: "background", 1: "liver", 2: "tumour"}


@pytest.mark.parametrize("left", ["missing", "empty"])
def test_unmounted_disk_loses_nothing(tmp_path, run_ingest, left):
    whole = Series(random_voxels((14, 11, 12)))
    whole.write(tmp_path / "disk" / "s")
    labelled_folder(tmp_path / "disk" / "n")
    labelled_folder(tmp_path / "labels_elsewhere", count=2)
    (tmp_path / "labels_elsewhere" / "labels").rename(tmp_path / "disk" / "labels")
    nifti(tmp_path / "other" / "x.nii.gz", scan_voxels(50))
    roots = (tmp_path / "disk", tmp_path / "other", tmp_path / "labels_elsewhere")
    run_ingest(*roots)
    before = state(tmp_path / "cohort")
    (tmp_path / "disk").rename(tmp_path / "away")
    if left == "empty":
        (tmp_path / "disk").mkdir()
    # Other rules plan every series again.
    for min_slices in (3, 4):
        run_ingest(*(root for root in roots if root.exists()), min_slices=min_slices)
        assert state(tmp_path / "cohort") == before
    # A late slice of the series, by itself no scan.
    (tmp_path / "other" / "late").mkdir()
    late = sorted((tmp_path / "away" / "s").iterdir())[0]
    shutil.copy(late, tmp_path / "other" / "late" / "again.dcm")
    run_ingest(tmp_path / "other")
    assert state(tmp_path / "cohort")[0] == before[0]
    shutil.rmtree(tmp_path / "disk", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "disk")
    run_ingest(*roots)
    assert state(tmp_path / "cohort")[0] == before[0]


def test_label_goes_with_file_not_with_disk(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a")
    run_ingest(root)
    (root / "labels").rename(tmp_path / "labels")
    assert run_ingest(root).n_labelled == 3
    (tmp_path / "labels").rename(root / "labels")
    (root / "labels" / "case_0.nii.gz").unlink()
    assert run_ingest(root).n_labelled == 2


def test_transient_failure_keeps_stored_scan(tmp_path, run_ingest, monkeypatch):
    root = labelled_folder(tmp_path / "a")
    run_ingest(root)
    before = state(tmp_path / "cohort")
    nifti(root / "images" / "case_1.nii.gz", scan_voxels(77))

    with monkeypatch.context() as context:
        context.setattr(
            archive_to_cohort, "store_scan", lambda task: Outcome(Reason.IO_ERROR, "the disk is slow today")
        )
        assert run_ingest(root).n_loaded == 1
    assert state(tmp_path / "cohort") == before
    assert run_ingest(root).n_loaded == 1
    after, _ = state(tmp_path / "cohort")
    assert len(set(after) & set(before[0])) == 3


def test_newly_rejected_scan_leaves_store(tmp_path, run_ingest):
    root = tmp_path / "Dataset001"
    nifti(root / "imagesTr" / "case_0000.nii.gz", scan_voxels(1))
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0}}))
    assert run_ingest(root).n_scans == 1
    nifti(root / "imagesTr" / "case_0001.nii.gz", scan_voxels(2))
    assert run_ingest(root).reasons == {"MULTI_CHANNEL": 2}
    assert state(tmp_path / "cohort")[0] == []


class Unlistable:
    """os.scandir for which some folders cannot be listed, as for a user without the right to. Tests may run as root."""

    def __init__(self, monkeypatch, *folders: Path):
        self.folders, self.real = set(folders), os.scandir
        monkeypatch.setattr(discover.os, "scandir", self)

    def __call__(self, path):
        if Path(path) in self.folders:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return self.real(path)


def test_unlistable_folder_keeps_scans_and_is_retried(tmp_path, run_ingest, monkeypatch):
    for number in range(2):
        Series(random_voxels(seed=number)).write(tmp_path / "a" / f"s{number}")
    run_ingest(tmp_path / "a")
    before = state(tmp_path / "cohort")
    unlistable = Unlistable(monkeypatch, tmp_path / "a" / "s1")
    for _ in range(2):
        report = run_ingest(tmp_path / "a")
        assert (report.n_scans, report.n_loaded, report.reasons) == (2, 0, {"IO_ERROR": 1})
    with read_index(tmp_path / "cohort" / "private") as index:
        (told,) = explain(index, str(tmp_path / "a" / "s1"), show_paths=False)
    assert (told.name, told.detail) == ("folder", "the folder cannot be listed (Permission denied)")
    unlistable.folders = {tmp_path / "a"}
    nifti(tmp_path / "b" / "x.nii.gz", scan_voxels(1))
    assert run_ingest(tmp_path / "a", tmp_path / "b").reasons == {"IO_ERROR": 2}  # s1 and a itself
    unlistable.folders = set()
    assert run_ingest(tmp_path / "a").reasons == {}
    assert set(before[0]) < set(state(tmp_path / "cohort")[0])


def test_file_renamed_during_listing_costs_only_itself(tmp_path, run_ingest, monkeypatch):
    """An export writes 000.tmp and renames it when it is complete."""
    Series(random_voxels()).write(tmp_path / "a")
    (tmp_path / "a" / "000.tmp").write_text("partial")
    real = os.scandir

    @contextmanager
    def racing(path):
        with real(path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        if (part := Path(path, "000.tmp")).exists():
            part.rename(part.with_name("099.txt"))
        yield listed

    monkeypatch.setattr(discover.os, "scandir", racing)
    monkeypatch.setattr(planning, "check_not_empty", lambda *roots, **options: None)
    assert run_ingest(tmp_path / "a").n_scans == 1
