"""Archive to cohort: what lands in the manifest and the store, what a second run costs, and what a bad file costs."""

import json
import os
import shutil
import stat
import struct
from collections import Counter

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from written_dicom import Series, random_voxels, save
from written_nifti import AFFINE, label_voxels, labelled_folder, nifti, scan_voxels

from medssl.archive.limits import Limits
from medssl.cohort.cohort import Cohort
from medssl.cohort.manifest import read_manifest
from medssl.errors import DataError, UsageError
from medssl.ingestion.archive_to_cohort import ingest
from medssl.ingestion.settings import IngestSettings
from medssl.store.volumes import open_volume


def test_images_with_sibling_labels_become_cohort(tmp_path, run_ingest):
    report = run_ingest(labelled_folder(tmp_path / "a"))
    assert (report.n_scans, report.n_labelled, report.n_rejected) == (4, 3, 0)
    cohort = Cohort.open(tmp_path / "cohort")
    assert len(cohort.accepted(labelled=True)) == 3
    assert len(cohort.accepted(labelled=False)) == 1
    assert {row.labels for row in cohort.rows} == {(0, 1, 2), ()}
    for row in cohort.accepted():
        stored = open_volume(cohort.store, row.scan_id)
        assert stored.has_label == row.labelled
        assert stored.shape == (8, 10, 12)
    assert sorted(row.scan_id for row in cohort.rows) == [row.scan_id for row in cohort.accepted()]


def test_label_dir_and_sibling_labels_are_matched(tmp_path, run_ingest):
    nifti(tmp_path / "scans" / "ward" / "x.nii.gz", scan_voxels(1))
    nifti(tmp_path / "scans" / "y.nii", scan_voxels(2))
    nifti(tmp_path / "scans" / "y_seg.nii.gz", label_voxels())
    nifti(tmp_path / "truth" / "x.nii.gz", label_voxels())
    report = run_ingest(tmp_path / "scans", label_dir=tmp_path / "truth")
    assert (report.n_scans, report.n_labelled, report.n_rejected) == (2, 2, 0)


def test_decathlon_layout_gives_label_names_and_modality(tmp_path, run_ingest):
    root = tmp_path / "Task04"
    nifti(root / "imagesTr" / "h_001.nii.gz", scan_voxels(1))
    nifti(root / "labelsTr" / "h_001.nii.gz", label_voxels())
    nifti(root / "imagesTs" / "h_002.nii.gz", scan_voxels(2))
    (root / "imagesTr" / "._h_001.nii.gz").write_bytes(b"\0\5\x16\7" + b"apple double" * 20)
    facts = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}}
    (root / "dataset.json").write_text(json.dumps(facts))
    report = run_ingest(root)
    cohort = Cohort.open(tmp_path / "cohort")
    assert cohort.label_names == {0: "background", 1: "Anterior", 2: "Posterior"}
    assert {row.modality for row in cohort.accepted()} == {"MR"}
    assert (report.n_scans, report.n_labelled) == (2, 1)


def test_nnunet_layout_rejects_several_channels(tmp_path, run_ingest):
    root = tmp_path / "Dataset007_X"
    nifti(root / "imagesTr" / "case1_0000.nii.gz", scan_voxels(1))
    nifti(root / "labelsTr" / "case1.nii.gz", label_voxels())
    for channel in range(2):
        nifti(root / "imagesTr" / f"case2_{channel:04d}.nii.gz", scan_voxels(2 + channel))
    facts = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumour": 2},
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(facts))
    report = run_ingest(root)
    assert (report.n_scans, report.n_labelled, report.reasons) == (1, 1, {"MULTI_CHANNEL": 2})
    cohort = Cohort.open(tmp_path / "cohort")
    assert cohort.label_names == {0: "background", 1: "liver", 2: "tumour"}
    assert cohort.accepted()[0].modality == "CT"


def test_dataset_json_in_use_must_stay_readable(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a")
    strange = tmp_path / "a" / "other" / "dataset.json"
    strange.parent.mkdir()
    for text in ('{"labels": {"a": {"color": 1}}}', '{"images": [1,2,', "[" * 100_000):
        strange.write_text(text)
        report = run_ingest(root)
        assert (report.n_scans, report.n_labelled, report.reasons) == (4, 3, {"DATASET_JSON": 1})
    strange.write_text('{"labels": {"0": "background", "1": "liver", "2": "tumour"}}')
    assert run_ingest(root).reasons == {}
    strange.write_text("{")
    with pytest.raises(DataError, match=r"other/dataset\.json: the file is not valid JSON"):
        run_ingest(root)
    (root / "labels" / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"labels/dataset\.json: the file is not valid JSON"):
        run_ingest(root, label_dir=root / "labels", out=tmp_path / "new")


def test_changed_img_beside_same_hdr_is_reloaded(tmp_path, run_ingest):
    (tmp_path / "a").mkdir()
    for number, name in enumerate(("x", "x_seg")):
        voxels = label_voxels() if number else scan_voxels(1)
        nibabel.Nifti1Pair(voxels, AFFINE).to_filename(tmp_path / "a" / f"{name}.hdr")
    assert run_ingest(tmp_path / "a").n_labelled == 1
    before = Cohort.open(tmp_path / "cohort").accepted()
    assert run_ingest(tmp_path / "a").n_loaded == 0
    (tmp_path / "a" / "x.img").write_bytes(scan_voxels(2).tobytes(order="F"))
    assert run_ingest(tmp_path / "a").n_loaded == 1
    after = Cohort.open(tmp_path / "cohort").accepted()
    assert [row.scan_id for row in after] == [row.scan_id for row in before]
    assert [row.content_hash for row in after] != [row.content_hash for row in before]
    (tmp_path / "a" / "x_seg.img").write_bytes((label_voxels() * 3).tobytes(order="F"))
    run_ingest(tmp_path / "a")
    (tmp_path / "a" / "x.img").unlink()
    assert run_ingest(tmp_path / "a").n_loaded == 0
    assert [row.labels for row in Cohort.open(tmp_path / "cohort").accepted()] == [(0, 3, 6)]


def test_dicom_and_nifti_in_one_folder(tmp_path, run_ingest):
    Series(random_voxels()).write(tmp_path / "mixed" / "ct")
    nifti(tmp_path / "mixed" / "mr.nii.gz", scan_voxels(3))
    (tmp_path / "mixed" / "README.txt").write_text("about these scans")
    report = run_ingest(tmp_path / "mixed")
    assert report.n_scans == 2
    assert report.reasons == {"NOT_DICOM": 1}
    assert len(read_manifest(tmp_path / "cohort" / "manifest.parquet")) == 2


def test_dicomdir_is_counted_not_followed(tmp_path, run_ingest):
    """The class of a DICOMDIR stands in its meta information only (PS3.10 8.6)."""
    Series(random_voxels()).write(tmp_path / "a" / "ct")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.1.3.10"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    lists = pydicom.Dataset()
    lists.FileSetID, lists.DirectoryRecordSequence = "X", [pydicom.Dataset()]
    lists.DirectoryRecordSequence[0].ReferencedFileID = ["OTHER", "IM1"]
    lists.file_meta = meta
    save(lists, tmp_path / "a" / "DICOMDIR")
    assert run_ingest(tmp_path / "a").reasons == {"DICOMDIR": 1}


def test_bad_file_costs_itself_with_reason(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a", count=3)
    images = root / "images"
    data = (images / "case_0.nii.gz").read_bytes()
    (images / "cut.nii.gz").write_bytes(data[: len(data) // 2])
    (images / "empty.nii.gz").write_bytes(b"")
    nifti(images / "flat.nii.gz", np.full((12, 10, 8), 7, np.int16))
    nifti(images / "nans.nii.gz", np.where(scan_voxels(9) > 490, np.nan, 1.0).astype(np.float32))
    nifti(images / "plane.nii.gz", scan_voxels(5, (12, 10, 1)))
    nifti(images / "series.nii.gz", np.stack([scan_voxels(6), scan_voxels(7)], axis=3))
    nifti(root / "labels" / "nobody.nii.gz", label_voxels())
    nifti(images / "shifted.nii.gz", scan_voxels(8))
    moved = AFFINE.copy()
    moved[0, 3] = 3.0
    nifti(root / "labels" / "shifted.nii.gz", label_voxels(), moved)
    nifti(images / "fuzzy.nii.gz", scan_voxels(10))
    nifti(root / "labels" / "fuzzy.nii.gz", label_voxels() * np.float32(0.5))
    report = run_ingest(root)
    once = (
        "TRUNCATED",
        "EMPTY_FILE",
        "EMPTY_VOLUME",
        "NAN_VOXELS",
        "LABEL_WITHOUT_IMAGE",
        "LABEL_GRID",
        "LABEL_NOT_INTEGER",
    )
    assert report.reasons == {"NOT_3D": 2} | dict.fromkeys(once, 1)
    assert (report.n_scans, report.n_labelled) == (5, 2)
    assert report.flags == {"F_LABEL_LEFT_OUT": 2}


def test_second_ingest_loads_nothing(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a")
    Series(random_voxels()).write(root / "ct")
    first = run_ingest(root)
    digest = Cohort.open(tmp_path / "cohort").digest
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cohort" / "store").iterdir()}
    again = run_ingest(root)
    assert (first.n_loaded, again.n_loaded) == (5, 0)
    assert Cohort.open(tmp_path / "cohort").digest == digest
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "cohort" / "store").iterdir()}


def test_changed_scan_alone_is_loaded_again(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a")
    run_ingest(root)
    before = {row.scan_id: row.content_hash for row in Cohort.open(tmp_path / "cohort").rows}
    nifti(root / "images" / "case_1.nii.gz", scan_voxels(77))
    nifti(root / "images" / "case_9.nii.gz", scan_voxels(78))
    nifti(root / "labels" / "case_3.nii.gz", label_voxels())
    report = run_ingest(root)
    assert (report.n_loaded, report.n_labelled) == (3, 4)
    after = {row.scan_id: row.content_hash for row in Cohort.open(tmp_path / "cohort").rows}
    assert len(set(before.items()) & set(after.items())) == 3


def test_scan_missing_from_store_is_loaded_again(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a")
    run_ingest(root)
    cohort = Cohort.open(tmp_path / "cohort")
    victim = cohort.accepted()[1].scan_id
    (cohort.store / f"{victim}.b2nd").unlink()
    assert run_ingest(root).n_loaded == 1
    assert open_volume(cohort.store, victim).shape == (8, 10, 12)


def test_vanished_file_keeps_scan(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a")
    run_ingest(root)
    digest = Cohort.open(tmp_path / "cohort").digest
    shutil.rmtree(root / "images")
    shutil.rmtree(root / "labels")
    (root / "note.txt").write_text("moved to tape")
    report = run_ingest(root)
    assert report.n_scans == 4
    assert Cohort.open(tmp_path / "cohort").digest == digest


def test_changed_rules_replan_without_reading_headers(tmp_path, run_ingest):
    Series(random_voxels()).write(tmp_path / "a", lambda ds, k: setattr(ds, "ImageType", ["DERIVED", "PRIMARY", "MIP"]))
    assert run_ingest(tmp_path / "a").n_scans == 0
    assert run_ingest(tmp_path / "a", include_derived=True).n_scans == 1


def test_rules_hold_until_changed(tmp_path, run_ingest):
    Series(random_voxels((12, 10, 6))).write(tmp_path / "a" / "short")
    derived = Series(random_voxels(seed=1))
    derived.write(tmp_path / "a" / "mip", lambda ds, k: setattr(ds, "ImageType", ["DERIVED", "PRIMARY", "MIP"]))
    nifti(tmp_path / "b" / "x.nii.gz", scan_voxels(1))
    settings = {"limits": Limits(field_of_view_mm=5.0), "workers": 0, "key_file": tmp_path / "key"}

    def run(source, **named):
        return ingest([source], tmp_path / "cohort", settings=IngestSettings(**settings, **named))

    assert run(tmp_path / "a", min_slices=5, include_derived=True).n_scans == 2
    later = run(tmp_path / "b")
    assert (later.n_scans, later.n_loaded, later.notices) == (3, 1, ())
    stricter = run(tmp_path / "b", include_derived=False)
    assert (stricter.n_scans, stricter.reasons) == (2, {"DERIVED": 1})
    assert stricter.notices == ("include_derived is False from now on, not True. All series are judged anew.",)
    facts = json.loads((tmp_path / "cohort" / "cohort.json").read_text())
    assert facts["rules"] == {"min_slices": 5, "include_derived": False, "volumes_per_series": 4}


def test_declared_modality_is_per_source(tmp_path, run_ingest):
    for number, name in enumerate(("ct/images", "mr/images", "else")):
        nifti(tmp_path / name / f"{name[:2]}.nii.gz", scan_voxels(number))

    def modalities():
        stored = Cohort.open(tmp_path / "cohort")
        words = sorted(row.modality for row in stored.accepted())
        assert words == sorted(open_volume(stored.store, row.scan_id).modality for row in stored.accepted())
        return words

    run_ingest(tmp_path / "ct" / "images", modality="CT")
    run_ingest(tmp_path / "mr" / "images", modality="MR")
    assert modalities() == ["CT", "MR"]
    report = run_ingest(tmp_path / "mr" / "images", tmp_path / "else")
    assert (modalities(), report.n_loaded) == (["CT", "MR", "unknown"], 1)
    (tmp_path / "mr").rename(tmp_path / "mr-2")
    run_ingest(tmp_path / "mr-2" / "images")
    assert modalities() == ["CT", "MR", "unknown"]
    report = run_ingest(tmp_path / "ct" / "images", modality="PT")
    assert modalities() == ["MR", "PT", "unknown"]
    assert report.n_loaded == 1  # what is stored depends on it
    assert report.notices == (f"NIfTI scans in {tmp_path / 'ct' / 'images'} are PT from now on, not CT.",)


def test_duplicate_voxels_are_stored_once_with_label(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a", count=2)
    shutil.copy(root / "images" / "case_0.nii.gz", root / "images" / "alias.nii.gz")
    report = run_ingest(root)
    assert report.reasons == {"DUPLICATE_CONTENT": 1}
    assert (report.n_scans, report.n_labelled) == (2, 1)
    stored = {path.name.split(".")[0] for path in (tmp_path / "cohort" / "store").iterdir()}
    assert stored == {row.scan_id for row in Cohort.open(tmp_path / "cohort").accepted()}
    assert run_ingest(root).n_loaded == 0


def test_split_is_by_patient_and_stable(tmp_path, run_ingest):
    for patient in range(30):
        for visit in range(2):
            series = Series(random_voxels((6, 5, 4), seed=100 * patient + visit), patient=f"P{patient}")
            series.write(tmp_path / "a" / f"{patient}-{visit}")
    run_ingest(tmp_path / "a", fractions=(0.5, 0.25, 0.25))
    before = {row.patient_id: row.split for row in Cohort.open(tmp_path / "cohort").rows}
    assert len(before) == 30
    assert set(Counter(before.values())) == {"train", "val", "test"}
    Series(random_voxels((6, 5, 4), seed=9999), patient="P-new").write(tmp_path / "a" / "new")
    run_ingest(tmp_path / "a")
    rows = Cohort.open(tmp_path / "cohort").rows
    after = {row.patient_id: row.split for row in rows}
    assert len({(row.patient_id, row.split) for row in rows}) == 31
    assert before.items() <= after.items()


def test_splits_file_overrides_split(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a")
    table = tmp_path / "splits.csv"
    table.write_text("file,split\ncase_0.nii.gz,test\ncase_1.nii.gz,val\ncase_2.nii.gz,test\ncase_3.nii.gz,test\n")
    assert run_ingest(root, splits=table).splits == {"test": 3, "val": 1}
    assert run_ingest(root).splits == {"test": 3, "val": 1}
    table.write_text("file,split\ncase_0.nii.gz,test\nnobody.nii.gz,val\n")
    with pytest.raises(UsageError, match=r"names nobody\.nii\.gz"):
        run_ingest(root, splits=table)
    table.write_text("file,split\ncase_0.nii.gz,exam\n")
    with pytest.raises(UsageError, match="line 2: the split is 'exam'"):
        run_ingest(root, splits=table)
    table.write_text("name\ncase_0\n")
    with pytest.raises(UsageError, match="header line"):
        run_ingest(root, splits=table)


def test_bids_subject_is_patient(tmp_path, run_ingest):
    for number, name in enumerate(("T1w", "T2w")):
        nifti(tmp_path / "ds" / "sub-01" / "anat" / f"sub-01_{name}.nii.gz", scan_voxels(number))
    run_ingest(tmp_path / "ds")
    rows = Cohort.open(tmp_path / "cohort").accepted()
    assert len({row.patient_id for row in rows}) == 1
    assert {row.modality for row in rows} == {"MR"}


def test_folder_above_source_is_not_patient(tmp_path, run_ingest):
    for number in range(3):
        nifti(tmp_path / "sub-archive" / "a" / f"p{number}" / f"scan{number}.nii.gz", scan_voxels(number))
    run_ingest(tmp_path / "sub-archive" / "a")
    assert len({row.patient_id for row in Cohort.open(tmp_path / "cohort").accepted()}) == 3
    for number, name in enumerate(("T1w", "T2w")):
        nifti(tmp_path / "ds" / "sub-01" / "anat" / f"sub-01_{name}.nii.gz", scan_voxels(number))
    run_ingest(tmp_path / "ds" / "sub-01" / "anat", out=tmp_path / "part")
    run_ingest(tmp_path / "ds", out=tmp_path / "whole")
    part, whole = (Cohort.open(tmp_path / name).accepted() for name in ("part", "whole"))
    assert len({row.patient_id for row in (*part, *whole)}) == 1


def test_dry_run_writes_nothing(tmp_path, run_ingest, key_file):
    report = run_ingest(labelled_folder(tmp_path / "a"), dry_run=True)
    assert report.n_scans == 4
    assert not (tmp_path / "cohort").exists()
    assert not key_file.exists()


def test_cohort_permissions_and_no_names(tmp_path, run_ingest, key_file):
    root = labelled_folder(tmp_path / "Grumbling_Zwiebel")
    Series(random_voxels(), patient="HN7734421").write(root / "Xenobia")
    run_ingest(root)
    private = tmp_path / "cohort" / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((private / "index.sqlite").stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    for path in (tmp_path / "cohort").rglob("*"):
        if path.is_file() and private not in path.parents:
            content = path.read_bytes()
            for planted in (b"Zwiebel", b"Xenobia", b"HN7734421", b"case_"):
                assert planted not in content
                assert planted not in path.name.encode()


def test_unusable_sources_fail_at_once(tmp_path, run_ingest):
    with pytest.raises(UsageError, match="does not exist"):
        run_ingest(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        run_ingest(tmp_path / "empty")
    assert not (tmp_path / "cohort").exists()
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="neither empty nor a cohort"):
        run_ingest(labelled_folder(tmp_path / "a"))


def test_other_key_or_seed_cannot_continue_cohort(tmp_path, run_ingest):
    root = labelled_folder(tmp_path / "a")
    run_ingest(root)
    with pytest.raises(UsageError, match="pseudonym key"):
        run_ingest(root, key_file=tmp_path / "other.key")
    with pytest.raises(UsageError, match="seed 0, not 5"):
        run_ingest(root, seed=5)


def test_key_must_be_private_and_intact(tmp_path, run_ingest, key_file):
    root = labelled_folder(tmp_path / "a")
    run_ingest(root)
    key_file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        run_ingest(root)
    key_file.chmod(0o600)
    key_file.write_text("abc")
    with pytest.raises(DataError, match="does not hold a pseudonym key"):
        run_ingest(root)


def test_symlinks_are_followed_inside_source_only(tmp_path, run_ingest):
    nifti(tmp_path / "a" / "one.nii.gz", scan_voxels(1))
    nifti(tmp_path / "elsewhere" / "two.nii.gz", scan_voxels(2))
    os.symlink(tmp_path / "elsewhere", tmp_path / "a" / "out")
    os.symlink(tmp_path / "a", tmp_path / "a" / "loop")
    assert run_ingest(tmp_path / "a").n_scans == 1
    report = run_ingest(tmp_path / "a", follow_symlinks=True, out=tmp_path / "followed")
    assert report.n_scans == 1
    assert report.reasons == {"SYMLINK_OUTSIDE_ROOT": 1}


def test_scan_too_large_for_worker_costs_itself(tmp_path, run_ingest):
    """With real worker processes, whose whole address space is smaller than the voxels of one of the scans."""
    root = labelled_folder(tmp_path / "a", count=3)
    header = bytearray((nifti(tmp_path / "big.nii", scan_voxels(1))).read_bytes()[:352])
    struct.pack_into("<8h", header, 40, 3, 1000, 1000, 1000, 1, 1, 1, 1)
    with (root / "images" / "big.nii").open("wb") as file:
        file.write(header)
        file.truncate(352 + 2 * 1000**3)
    limits = Limits(field_of_view_mm=5.0, worker_bytes=1_600_000_000)
    report = run_ingest(root, workers=1, limits=limits)
    assert report.n_scans == 3
    assert report.reasons == {"TOO_LARGE": 1}


def test_ct_reconstructions_are_flagged_as_siblings(tmp_path, run_ingest):
    thin = Series(random_voxels((14, 11, 18)))
    thin.step_mm = thin.step_mm / 2
    thick = Series(random_voxels((14, 11, 9), seed=1), study_uid=thin.study_uid)
    thick.write(tmp_path / "a" / "thick")
    thin.write(tmp_path / "a" / "thin")
    elsewhere = Series(random_voxels(seed=2), study_uid=thin.study_uid, origin_mm=np.array([400.0, 0.0, 0.0]))
    elsewhere.write(tmp_path / "a" / "elsewhere")
    report = run_ingest(tmp_path / "a")
    assert report.n_scans == 3
    assert report.flags == {"F_RECON_SIBLING": 2}
