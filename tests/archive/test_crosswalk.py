"""Patients under several ids: one pseudonym, one split, and a list that says nothing wrong."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from written_dicom import Series, random_voxels

from medssl.archive.privacy.crosswalk import read_patients_file
from medssl.archive.privacy.pseudonyms import Crosswalk
from medssl.cohort.cohort import Cohort
from medssl.errors import UsageError


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def archive(root: Path, *patients: str) -> Path:
    for number, patient in enumerate(patients):
        Series(random_voxels((6, 5, 4), seed=number), patient=patient).write(root / str(number))
    return root


def patients_of(cohort: Path) -> dict[str, str]:
    return {row.scan_id: row.patient_id for row in Cohort.open(cohort).accepted()}


def test_crosswalk_merges_patients_without_reloading(tmp_path, run_ingest):
    root = archive(tmp_path / "a", "P1", "P2", "P3")
    run_ingest(root)
    before = patients_of(tmp_path / "cohort")
    assert len(set(before.values())) == 3
    known = table(tmp_path / "known.csv", "patient,same_as\np2 ,P1\n")
    assert run_ingest(root, patients=known).n_loaded == 0
    after = patients_of(tmp_path / "cohort")
    changed = [scan for scan in before if before[scan] != after[scan]]
    assert len(changed) == 1
    assert after[changed[0]] in before.values()
    rows = Cohort.open(tmp_path / "cohort").rows
    assert len({(row.patient_id, row.split) for row in rows}) == 2


def test_crosswalk_holds_for_later_ingests(tmp_path, run_ingest):
    run_ingest(archive(tmp_path / "a", "P1"), patients=table(tmp_path / "known.csv", "patient,same_as\nP2,P1\n"))
    Series(random_voxels((6, 5, 4), seed=9), patient="P2").write(tmp_path / "a" / "late")
    run_ingest(tmp_path / "a")
    found = patients_of(tmp_path / "cohort")
    assert len(found) == 2
    assert len(set(found.values())) == 1


def test_crosswalk_merges_nifti_subjects(tmp_path, run_ingest):
    for number in (1, 2):
        path = tmp_path / "a" / f"sub-0{number}" / "anat" / f"sub-0{number}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        voxels = np.random.default_rng(number).integers(0, 500, (12, 10, 8)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1])), path)
    run_ingest(tmp_path / "a", patients=table(tmp_path / "known.csv", "patient,same_as\nsub-02,sub-01\n"))
    assert len(set(patients_of(tmp_path / "cohort").values())) == 1


def test_crosswalk_follows_chains_per_issuer():
    """Chains end at the id that remains; issuers are kept apart."""
    crosswalk = Crosswalk({("", "A"): ("", "B"), ("", "B"): ("", "C"), ("X", "D"): ("Y", "E"), ("X", "F"): ("", "G")})
    assert crosswalk("H", "A") == ("H", "C")
    assert crosswalk("X", "D") == ("Y", "E")
    assert crosswalk("Y", "D") == ("Y", "D")
    assert crosswalk("X", "F") == ("", "G")


def test_crosswalk_reads_issuer_columns(tmp_path):
    known = table(tmp_path / "k.csv", "patient,same_as,issuer,same_as_issuer\n17,a 4,North,South\n")
    assert read_patients_file(known).same_as == {("North", "17"): ("South", "A 4")}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id\n1\n", "header line 'patient,same_as'"),
        ("patient,same_as\n", "header line"),
        ("patient,same_as\nANON,P1\n", "line 2: patient is 'ANON', a placeholder of many patients"),
        ("patient,same_as\nP1,\n", "line 2: same_as is ''"),
        ("patient,same_as\nP1,P2\nP1,P3\n", "line 3: an earlier line contradicts it for this id"),
        ("patient,same_as\nP1,P2\nP2,P3\nP3,P1\n", "from an id back to itself"),
    ],
)
def test_invalid_crosswalk_error_names_no_patient(tmp_path, text, problem):
    with pytest.raises(UsageError, match=problem) as caught:
        read_patients_file(table(tmp_path / "k.csv", text))
    assert "P1" not in str(caught.value)


def test_crosswalk_cycle_over_two_ingests_is_an_error(tmp_path, run_ingest):
    root = archive(tmp_path / "a", "P1", "P2")
    run_ingest(root, patients=table(tmp_path / "k.csv", "patient,same_as\nP1,P2\n"))
    with pytest.raises(UsageError, match="together with the lines of earlier ingests"):
        run_ingest(root, patients=table(tmp_path / "k.csv", "patient,same_as\nP2,P1\n"))
