"""Two patients in one series, because their UIDs were blanked or made equal: never one scan, one id or one label."""

from pathlib import Path

import pytest
from planned_scans import KEY, accepted, assert_is, planned
from written_dicom import Series, random_voxels
from written_labels import outline, put, structure_set, written

from medssl.archive.index.database import read_index
from medssl.archive.privacy.pseudonyms import Crosswalk, Pseudonyms, open_key
from medssl.archive.privacy.splits import split_overrides
from medssl.cohort.cohort import Cohort
from medssl.cohort.manifest import ManifestRow

BLANK = {"series_uid": "", "study_uid": ""}
EQUAL = {"series_uid": "1.2.3.1", "study_uid": "1.2.3"}


def two(
    folder: Path, uids: dict[str, str], *, steps: float, patients: tuple[str, str] = ("HN1", "HN2")
) -> list[Series]:
    """Two series of 12 slices under the same UIDs, `steps` slices apart."""
    written = []
    for number, patient in enumerate(patients):
        series = Series(random_voxels((14, 11, 12), seed=number), patient=patient, **uids)
        series.origin_mm = series.origin_mm + number * steps * series.step_mm
        series.write(folder / str(number))
        written.append(series)
    return written


def by_patient(folder: Path) -> dict[str, tuple[ManifestRow, object]]:
    found = accepted(folder)
    assert len({row.patient_id for row, _ in found}) == len(found)
    return {row.patient_id: (row, volume) for row, volume in found}


@pytest.mark.parametrize("uids", [BLANK, EQUAL])
@pytest.mark.parametrize("steps", [12.0, 0.5, 0.0, 4.0])
def test_mixed_series_is_split_by_patient(tmp_path, uids, steps):
    series = two(tmp_path, uids, steps=steps)
    found = by_patient(tmp_path)
    assert set(found) == {KEY.patient("", "HN1"), KEY.patient("", "HN2")}
    for one in series:
        row, volume = found[KEY.patient("", one.patient)]
        assert_is(volume, one)
        assert (row.flags, row.shape, row.n_files) == (("F_SPLIT_PATIENT",), (14, 11, 12), 12)
    assert len({row.series_id for row, _ in found.values()}) == 2


def test_equal_instance_uids_of_patients_are_not_duplicates(tmp_path):
    for number in (1, 2):
        series = Series(random_voxels((14, 11, 9), seed=number), patient=f"HN{number}", **EQUAL)
        series.write(tmp_path / str(number), lambda ds, k: setattr(ds, "SOPInstanceUID", f"1.2.9.{k}"))
    assert len(by_patient(tmp_path)) == 2
    assert [row.flags for row, _ in accepted(tmp_path)] == [("F_SPLIT_PATIENT",)] * 2


def test_left_out_parts_are_counted_per_patient(tmp_path):
    for number in (1, 2):
        series = Series(random_voxels((14, 11, 9), seed=number), patient=f"HN{number}", **EQUAL)
        series.write(
            tmp_path / str(number), lambda ds, k: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])
        )
    rows = [row for row, _ in planned(tmp_path)]
    assert [(row.reason, row.n_files) for row in rows] == [("LOCALIZER", 9)] * 2
    assert {row.patient_id for row in rows} == {KEY.patient("", "HN1"), KEY.patient("", "HN2")}
    assert len({row.scan_id for row in rows}) == 2


def test_patient_id_spellings_give_one_scan(tmp_path):
    series = Series(random_voxels(), patient="HN0001")
    series.write(tmp_path / "a")
    ((plain, _),) = accepted(tmp_path / "a")
    series.write(tmp_path / "b", lambda ds, k: setattr(ds, "PatientID", ("HN0001", "hn0001 ", " Hn0001")[k % 3]))
    ((row, volume),) = accepted(tmp_path / "b")
    assert_is(volume, series)
    assert (row.flags, row.scan_id, row.series_id) == ((), plain.scan_id, plain.series_id)
    assert row.series_id == KEY.name("series", series.study_uid, series.series_uid)
    assert row.scan_id == f"{row.series_id}-0"


def test_slices_without_patient_id_stay_apart(tmp_path):
    series = Series(random_voxels((14, 11, 12)), patient="HN1")
    series.write(tmp_path / "a", lambda ds, k: setattr(ds, "PatientID", "" if k < 4 else "HN1"))
    found = {row.patient_id: (row, volume) for row, volume in accepted(tmp_path)}
    row, volume = found.pop(KEY.patient("", "HN1"))
    assert_is(volume, series, slice(4, 12))
    ((row, volume),) = found.values()
    assert_is(volume, series, slice(0, 4))
    assert row.flags == ("F_SPLIT_PATIENT", "F_PATIENT_ID_SUSPECT")


def test_crosswalk_joins_series_with_corrected_id(tmp_path, run_ingest):
    series = Series(random_voxels((14, 11, 12)), patient="HN1")
    series.write(tmp_path / "a", lambda ds, k: setattr(ds, "PatientID", "HN1" if k < 6 else "HN2"))
    run_ingest(tmp_path / "a")
    assert sorted(row.shape[2] for row in Cohort.open(tmp_path / "cohort").accepted()) == [6, 6]
    (tmp_path / "known.csv").write_text("patient,same_as\nHN2,HN1\n")
    run_ingest(tmp_path / "a", patients=tmp_path / "known.csv")
    (row,) = Cohort.open(tmp_path / "cohort").accepted()
    assert (row.shape, row.flags) == ((14, 11, 12), ())
    assert Pseudonyms(bytes(32), Crosswalk({("", "A"): ("", "B")})).canonical_id("", "a ") == ("", "B")


def test_scan_ids_stay_when_patients_are_added(tmp_path, run_ingest):
    two(tmp_path / "a", BLANK, steps=0.0)
    run_ingest(tmp_path / "a")
    before = {row.scan_id for row in Cohort.open(tmp_path / "cohort").accepted()}
    for number in range(3, 7):
        Series(random_voxels(seed=number), patient=f"HN{number}", **BLANK).write(tmp_path / "a" / str(number))
    assert run_ingest(tmp_path / "a").n_loaded == 4
    assert before < {row.scan_id for row in Cohort.open(tmp_path / "cohort").accepted()}


def test_split_override_concerns_one_patient(tmp_path, run_ingest, key_file):
    two(tmp_path / "a", EQUAL, steps=0.0)
    run_ingest(tmp_path / "a")
    (path, *_) = (tmp_path / "a" / "1").iterdir()
    split = tmp_path / "split.csv"
    split.write_text(f"file,split\n{path},test\n")
    run_ingest(tmp_path / "a", splits=split)
    with read_index(tmp_path / "cohort" / "private") as index:
        ((patient, word),) = split_overrides(index, {}, None).items()
    row = next(row for row in Cohort.open(tmp_path / "cohort").accepted() if row.patient_id == patient)
    assert (row.split, word) == ("test", "test")
    assert patient == open_key(key_file).patient("", "HN2")


def test_structure_set_labels_its_patient_only(tmp_path, run_ingest):
    for number in (1, 2):
        series = Series(random_voxels((14, 11, 9), seed=number), patient=f"HN{number}", **EQUAL)
        images = written(
            series, tmp_path / "a" / str(number), lambda ds, k: setattr(ds, "SOPInstanceUID", f"1.2.9.{k}")
        )
    corners = outline(series, [(2, 2), (9, 2), (9, 8), (2, 8)], 4)
    put(structure_set(images, [("liver", [corners])]), tmp_path / "a" / "labels" / "rs")
    run_ingest(tmp_path / "a")
    labels = {row.patient_id: bool(row.labels) for row in Cohort.open(tmp_path / "cohort").accepted()}
    assert sorted(labels.values()) == [False, True]
    with read_index(tmp_path / "cohort" / "private") as index:
        (labelled,) = [scan for scan in index.scans() if scan.load_plan and scan.load_plan.labels]
    assert Path(labelled.load_plan.files[0].file.path).parent.name == "2"


def test_siblings_are_of_one_patient(tmp_path, run_ingest):
    for number in (1, 2):
        Series(random_voxels(seed=number), patient=f"HN{number}", study_uid="1.2.3").write(tmp_path / "a" / str(number))
    run_ingest(tmp_path / "a")
    assert [row.flags for row in Cohort.open(tmp_path / "cohort").accepted()] == [(), ()]
