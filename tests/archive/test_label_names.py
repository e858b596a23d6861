"""Names of structures: which of them leave the archive, and that a label has one number in a whole cohort."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loaded_labels import accepted, loaded, only
from written_dicom import Series, random_voxels
from written_labels import outline, put, structure_set, written

from medssl.archive.dicom.label_record import Structure
from medssl.archive.labels.names import read_names_file
from medssl.archive.labels.terms import term_of_codes, term_of_name
from medssl.cohort.cohort import Cohort
from medssl.errors import DataError, UsageError

SHAPE = (14, 11, 9)


def square(series: Series, i: float, *slices: int) -> list[np.ndarray]:
    """A square of 2 x 2 voxels from (i, 2) on."""
    corners = [(i - 0.5, 1.5), (i + 1.5, 1.5), (i + 1.5, 3.5), (i - 0.5, 3.5)]
    return [outline(series, corners, k) for k in slices]


def labelled(folder: Path, *names: str, seed: int = 0) -> None:
    """A scan with one square for each name, from left to right."""
    series = Series(random_voxels(SHAPE, seed=seed), patient=f"P-{seed}")
    images = written(series, folder / f"ct{seed}")
    rois = [(name, square(series, 1 + 3 * number, 2, 3)) for number, name in enumerate(names)]
    put(structure_set(images, rois), folder / f"rt{seed}")


def found(cohort: Path) -> list[dict[int, int]]:
    """For each scan, value of a label by the place of its square."""
    return [
        {number: int(scan.label.voxels[1 + 3 * number, 2, 2]) for number in range(4) if scan.label is not None}
        for _, scan in loaded(cohort)
    ]


def names_file(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("name,label", *lines)) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Liver", "liver"), ("LIVER", "liver"), ("Lung_L", "lung-left"), ("LungL", "lung-left"),
        ("Rt Lung", "lung-right"),
        ("lungs", "lung"), ("kidney_right", "kidney-right"), ("Left Kidney", "kidney-left"), ("GTV-1", "tumour"),
        ("Spinal Cord", "spinal-cord"), ("SpinalCord", "spinal-cord"), ("urinary_bladder", "bladder"),
        ("Femur_Head_L", "femoral-head-left"), ("heart_atrium_left", "left-atrium"),
        ("Glnd_Submand_R", "submandibular-gland-right"),
        ("Liver Mueller", None), ("liver 4", None), ("BODY", None), ("PTV", None), ("vertebrae_L5", None), ("L", None),
        ("Kidney L R", None), ("", None),
    ],
)  # fmt: skip
def test_term_of_name_knows_only_listed_spellings(name, word):
    assert term_of_name(name) == word


def test_term_of_codes_follows_pydicom_dictionary():
    from pydicom.sr.codedict import codes

    assert term_of_codes(("SCT:" + codes.SCT.Pancreas.value,)) == "pancreas"
    assert term_of_codes(("SCT:" + codes.SCT.Kidney.value, "SCT:" + codes.SCT.Left.value)) == "kidney-left"
    assert term_of_codes(("SRT:T-28000", "SRT:G-A100")) == "lung-right"
    assert term_of_codes(("99SDM:T-62000",)) == "liver"
    assert term_of_codes(("SCT:0",)) is None
    assert term_of_codes(()) is None


def test_term_codes_are_all_in_pydicom_dictionary():
    from pydicom.sr._concepts_dict import concepts
    from pydicom.sr._snomed_dict import mapping

    from medssl.archive.labels import terms

    known = {code for entries in concepts["SCT"].values() for code in entries}
    for table in (terms._SINGLE, terms._PAIRED):
        for line in filter(None, table.split("\n")):
            sct, srt = (part.strip() for part in line.split(";")[1:])
            assert not sct or (sct in known and mapping["SCT"].get(sct) == srt), line


def test_label_number_is_independent_of_spelling(tmp_path, run_ingest):
    labelled(tmp_path / "a", "Spleen", "liver", seed=0)
    labelled(tmp_path / "a", "LIVER", "Kidney_L", seed=1)
    labelled(tmp_path / "a", "left kidney", "SPLEEN", seed=2)
    run_ingest(tmp_path / "a")
    assert Cohort.open(tmp_path / "cohort").label_names == {0: "background", 1: "kidney-left", 2: "liver", 3: "spleen"}
    assert sorted((one[0], one[1]) for one in found(tmp_path / "cohort")) == [(1, 3), (2, 1), (3, 2)]


def test_label_numbers_stay_when_cohort_grows(tmp_path, run_ingest):
    labelled(tmp_path / "a", "Spleen", seed=0)
    run_ingest(tmp_path / "a")
    labelled(tmp_path / "a", "Aorta", "Spleen", seed=1)
    assert run_ingest(tmp_path / "a").n_loaded == 1
    assert Cohort.open(tmp_path / "cohort").label_names == {0: "background", 1: "spleen", 2: "aorta"}
    assert sorted((one[0], one[1]) for one in found(tmp_path / "cohort")) == [(1, 0), (2, 1)]


def test_structure_names_stay_in_private_index(tmp_path, run_ingest):
    labelled(tmp_path / "a", "Liver", "Mrs Zebrowska", seed=0)
    labelled(tmp_path / "a", "Nodule Zebrowska", seed=1)
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.n_labelled, report.reasons) == (2, 1, {"LABEL_NAMES": 1})
    assert sorted(row.flags for row in accepted(tmp_path / "cohort")) == [("F_LABEL_LEFT_OUT",), ("F_LABEL_PART",)]
    outside = [path for path in (tmp_path / "cohort").rglob("*") if path.is_file() and "private" not in path.parts]
    assert outside
    assert not [path for path in outside if b"Zebrowska" in path.read_bytes()]
    assert "Zebrowska" not in json.dumps(report.as_json())


def test_names_file_defines_labels_and_numbers(tmp_path, run_ingest):
    labelled(tmp_path / "a", "Liver", "Hepar  MD", "Spleen", "Couch", seed=0)
    names = names_file(tmp_path / "n.csv", "spleen,milz", "hepar md,leber", "LIVER,leber", "couch,")
    run_ingest(tmp_path / "a", label_names=names)
    assert Cohort.open(tmp_path / "cohort").label_names == {0: "background", 1: "milz", 2: "leber"}
    assert found(tmp_path / "cohort") == [{0: 2, 1: 2, 2: 1, 3: 0}]
    assert next(accepted(tmp_path / "cohort")).flags == ()


def test_names_file_can_come_later(tmp_path, run_ingest):
    labelled(tmp_path / "a", "Liver", "Thing", seed=0)
    run_ingest(tmp_path / "a")
    assert found(tmp_path / "cohort") == [{0: 1, 1: 0, 2: 0, 3: 0}]
    names = names_file(tmp_path / "n.csv", "thing,thing", "liver,liver")
    assert run_ingest(tmp_path / "a", label_names=names).n_loaded == 1
    assert run_ingest(tmp_path / "a").n_loaded == 0
    assert Cohort.open(tmp_path / "cohort").label_names == {0: "background", 1: "liver", 2: "thing"}
    assert found(tmp_path / "cohort") == [{0: 1, 1: 2, 2: 0, 3: 0}]


def test_names_file_accepts_codes(tmp_path):
    from medssl.archive.labels.names import NameTable

    table = NameTable(read_names_file(names_file(tmp_path / "n.csv", "SCT:10200004,leber")))
    assert table.label(Structure(1, "Segment_1", ("SCT:10200004",))) == "leber"
    assert table.label(Structure(1, "Segment_1", ("SCT:64033007",))) is None


def test_nifti_and_dicom_labels_share_numbers_by_name(tmp_path, run_ingest):
    import nibabel

    root = tmp_path / "a"
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    label = np.zeros((12, 10, 8), np.uint8)
    label[3:6, 2:7, 2:5] = 3
    image = np.random.default_rng(0).integers(0, 500, label.shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image, np.diag([2, 2, 3, 1.0])), root / "imagesTr" / "x.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, np.diag([2, 2, 3, 1.0])), root / "labelsTr" / "x.nii.gz")
    facts = {"modality": {"0": "CT"}, "labels": {"0": "background", "2": "Spleen", "3": "Liver"}}
    (root / "dataset.json").write_text(json.dumps(facts))
    labelled(root, "liver", "Aorta", "spleen", seed=0)
    run_ingest(root)
    names = Cohort.open(tmp_path / "cohort").label_names
    assert names == {0: "background", 1: "aorta", 2: "Spleen", 3: "Liver"}
    assert {row.labels for row in accepted(tmp_path / "cohort")} == {(0, 3), (0, 1, 2, 3)}
    facts["labels"] = {"0": "background", "1": "Pancreas"}
    (root / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="separate cohorts"):
        run_ingest(root)


@pytest.mark.parametrize(
    "lines", [["a,b", "A,c"], [",b"], []], ids=["two labels for one name", "a blank name", "no row at all"]
)
def test_names_file_with_contradiction_is_rejected(tmp_path, lines):
    with pytest.raises(UsageError):
        read_names_file(names_file(tmp_path / "n.csv", *lines))
    with pytest.raises(UsageError):
        read_names_file(tmp_path / "absent.csv")


def test_label_names_command_lists_an_editable_file(tmp_path, run_ingest):
    labelled(tmp_path / "a", "Liver", "Thing", seed=0)
    labelled(tmp_path / "a", "Liver", seed=1)
    run_ingest(tmp_path / "a")
    command = [sys.executable, "-m", "medssl_cli.main", "archive", "label-names", str(tmp_path / "cohort")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert listed == "name,label,objects\nLiver,liver,2\nThing,,1\n"
    (tmp_path / "n.csv").write_text(listed.replace("Thing,,", "Thing,thing,"))
    assert read_names_file(tmp_path / "n.csv") == {"liver": "liver", "thing": "thing"}


def test_label_object_is_ignored_without_ingest(tmp_path):
    from medssl.ingestion.one_scan import load_scan

    labelled(tmp_path / "a", "Liver", seed=0)
    assert load_scan(tmp_path / "a").shape == SHAPE


def test_label_object_copies_are_one_label(tmp_path, run_ingest):
    labelled(tmp_path / "a", "Liver", seed=0)
    data = (tmp_path / "a" / "rt0").read_bytes()
    (tmp_path / "a" / "again").write_bytes(data)
    report = run_ingest(tmp_path / "a")
    assert (report.n_labelled, report.n_rejected) == (1, 0)
    assert only(tmp_path / "cohort").label is not None
