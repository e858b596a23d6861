"""What a folder holds to segment, and where each label file goes: one place for each scan, whatever lies beside it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.downstream.inputs import check_outputs, find_inputs
from medssl.errors import UsageError
from tests.archive.written_dicom import Series, random_voxels, save

DIRECTORY = "1.2.840.10008.1.3.10"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def nifti(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)


def series(folder):
    Series(random_voxels((5, 4, 3))).write(folder)


def outputs(source, out):
    """Input to label file, both relative to where they lie."""
    found = find_inputs(source, out)
    return {str(item.path.relative_to(source)): str(item.output.relative_to(out)) for item in found.scans}


def test_outputs_keep_folders_of_equal_names(tmp_path):
    """`T1_1.nii.gz` and a numbered `T1` once became the same file."""
    for name in ("T1_1.nii.gz", "a/T1.nii.gz", "b/T1.nii"):
        nifti(tmp_path / "in" / name)
    assert outputs(tmp_path / "in", tmp_path / "out") == {
        "T1_1.nii.gz": "T1_1_labels.nii.gz",
        "a/T1.nii.gz": "a/T1_labels.nii.gz",
        "b/T1.nii": "b/T1_labels.nii.gz",
    }


def test_outputs_mirror_tree_of_series(tmp_path):
    for place in ("P2/ST1/SE1", "P2/ST1/SE2", "P3/ST1/SE1"):
        series(tmp_path / "in" / place)
    before = outputs(tmp_path / "in", tmp_path / "out")
    assert before["P2/ST1/SE2"] == "P2/ST1/SE2_labels.nii.gz"
    series(tmp_path / "in" / "P1/ST1/SE1")
    after = outputs(tmp_path / "in", tmp_path / "out")
    assert after == before | {"P1/ST1/SE1": "P1/ST1/SE1_labels.nii.gz"}


def test_single_input_goes_directly_into_out(tmp_path, monkeypatch):
    nifti(tmp_path / "in" / "case.nii.gz")
    series(tmp_path / "in" / "SE2")
    (single,) = find_inputs(tmp_path / "in" / "case.nii.gz", tmp_path / "out").scans
    (folder,) = find_inputs(tmp_path / "in" / "SE2", tmp_path / "out").scans
    assert [single.output.name, folder.output.name] == ["case_labels.nii.gz", "SE2_labels.nii.gz"]
    monkeypatch.chdir(tmp_path / "in" / "SE2")
    (here,) = find_inputs(Path(), tmp_path / "out").scans
    assert here.output == folder.output


@pytest.mark.parametrize("out", ["in", "in/labels"])
def test_inputs_exclude_earlier_predictions(tmp_path, out):
    nifti(tmp_path / "in" / "case.nii.gz")
    before = find_inputs(tmp_path / "in", tmp_path / out)
    for item in before.scans:
        nifti(item.output)
    assert find_inputs(tmp_path / "in", tmp_path / out) == before


def test_inputs_below_out_folder_are_found(tmp_path):
    nifti(tmp_path / "work" / "new" / "case.nii.gz")
    assert outputs(tmp_path / "work" / "new", tmp_path / "work") == {"case.nii.gz": "case_labels.nii.gz"}


def test_files_beside_series_make_no_input(tmp_path):
    """A DICOMDIR, a text, a screenshot: each once made the folder above the series another scan."""
    series(tmp_path / "in" / "IMAGES")
    (tmp_path / "in" / "README.md").write_text("words")
    for name, sop_class in (("DICOMDIR", DIRECTORY), ("screenshot", SECONDARY_CAPTURE)):
        other = Series(random_voxels((5, 4, 3))).dataset(0)
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = sop_class
        save(other, tmp_path / "in" / name)
    assert outputs(tmp_path / "in", tmp_path / "out") == {"IMAGES": "IMAGES_labels.nii.gz"}


def test_damaged_series_is_an_input(tmp_path):
    """So that its reason is reported; a folder without any DICOM file is skipped."""
    series(tmp_path / "in" / "good")
    series(tmp_path / "in" / "cut")
    for path in (tmp_path / "in" / "cut").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    (tmp_path / "in" / "text").mkdir()
    (tmp_path / "in" / "text" / "report.pdf").write_bytes(b"%PDF-1.4")
    found = find_inputs(tmp_path / "in", tmp_path / "out")
    assert [item.path.name for item in found.scans] == ["cut", "good"]
    assert [path.name for path in found.skipped] == ["report.pdf"]


def test_images_above_series_are_ambiguous(tmp_path):
    """They carry a problem that says what to do."""
    series(tmp_path / "in")
    series(tmp_path / "in" / "SE2")
    above, below = find_inputs(tmp_path / "in", tmp_path / "out").scans
    assert "Move them into a folder of their own" in str(above.problem)
    assert below.problem is None


def test_outputs_refuse_two_inputs_per_file(tmp_path):
    nifti(tmp_path / "in" / "x.nii")
    nifti(tmp_path / "in" / "x.nii.gz")
    with pytest.raises(UsageError, match=r"x\.nii and .*x\.nii\.gz would both be written to .*x_labels\.nii\.gz"):
        check_outputs(find_inputs(tmp_path / "in", tmp_path / "out").scans, overwrite=True)
