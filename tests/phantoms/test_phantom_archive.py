"""The phantom archive on disk, read with pydicom, nibabel and dcm2niix."""

import gzip
import subprocess
import sys
from pathlib import Path

import dcm2niix
import nibabel
import numpy as np
import pydicom
import pytest

from medssl_phantoms import Grid, ct_phantom, labelled_case, make_archive, mr_phantom
from medssl_phantoms.archive import identity_of
from medssl_phantoms.dicom_files import Series, write_series
from medssl_phantoms.tiny import make_tiny_archive

TINY = Path(__file__).resolve().parents[2] / "sample_data" / "tiny"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("archive"), seed=3, dicom_patients=2, nifti_cases=3, shape=(22, 19, 17))


def files_below(folder):
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def content(path):
    """Bytes, unpacked: packed bytes depend on the version of zlib."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_tiny_archive_equals_generator_output(tmp_path):
    made = make_tiny_archive(tmp_path)
    fresh, committed = files_below(tmp_path), files_below(TINY)
    assert made.accepted == 6
    assert fresh.keys() == committed.keys()
    assert [name for name in fresh if content(fresh[name]) != content(committed[name])] == []
    assert sum(path.stat().st_size for path in committed.values()) < 1_000_000


@pytest.mark.parametrize("axes", ["LPS", "LIP"])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_dcm2niix_reads_series_exactly(tmp_path, axes, modality):
    grid = Grid((24, 19, 15), (11.0, 12.5, 14.0), axes, (5.0, -8.0, 3.0), (2.0, 4.0, -3.0))
    volume, _ = (ct_phantom if modality == "CT" else mr_phantom)(1, grid=grid)
    order = list(np.random.default_rng(0).permutation(15))
    write_series(tmp_path / "in", volume, Series(identity_of(0, 0), "ST1", 1, modality, "x"), order=order)
    (tmp_path / "out").mkdir()
    options = ["-p", "n", "-z", "n", "-f", "scan", "-o", str(tmp_path / "out"), str(tmp_path / "in")]
    subprocess.run([dcm2niix.bin, *options], check=True, capture_output=True)
    (path,) = (tmp_path / "out").glob("scan*.nii")
    theirs = nibabel.as_closest_canonical(nibabel.load(path))
    ours = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.voxels, volume.affine_ras_mm))
    assert np.asarray(theirs.dataobj) == pytest.approx(np.asarray(ours.dataobj))
    assert theirs.affine == pytest.approx(ours.affine, abs=1e-3)


def test_archive_summary_matches_disk(archive):
    series = {}
    for path in files_below(archive.dicom).values():
        image = pydicom.dcmread(path, stop_before_pixels=True)
        series.setdefault(image.SeriesInstanceUID, []).append(image)
    localizers = [s for s in series.values() if "LOCALIZER" in s[0].ImageType]
    captures = [s for s in series.values() if s[0].SOPClassUID.name == "Secondary Capture Image Storage"]
    single = [s for s in series.values() if len(s) == 1]
    assert (len(localizers), len(captures), len(single)) == (2, 1, 2)
    assert len(series) - len(localizers) - len(single) == archive.dicom_scans == 6
    assert sorted(archive.rejected) == ["localizer", "localizer", "secondary capture", "truncated"]
    assert len({s[0].PatientID for s in series.values()}) == 2
    assert all(len({tuple(image.ImageOrientationPatient) for image in s}) == 3 for s in localizers)
    assert files_below(archive.images).keys() == files_below(archive.labels).keys()
    assert archive.accepted == 6 + len(files_below(archive.images)) == 9


def test_truncated_file_lacks_pixels(archive):
    (path,) = archive.dicom.rglob("SE9/*")
    image = pydicom.dcmread(path)
    assert len(image.PixelData) < image.Rows * image.Columns * 2
    with pytest.raises(ValueError, match="pixel data"):
        _ = image.pixel_array


def test_planted_strings_are_in_every_series(archive):
    for path in files_below(archive.dicom).values():
        raw, name = path.read_bytes(), str(path)
        here = [text for text in archive.planted if text.encode() in raw]
        assert len(here) >= 5
        assert any(text in name for text in here)


def test_nifti_case_and_label_share_grid(archive):
    volume, label = labelled_case(3, 2, shape=(22, 19, 17))
    for folder, expected in ((archive.images, volume), (archive.labels, label)):
        image = nibabel.load(folder / "case_002.nii.gz")
        assert (np.asarray(image.dataobj) == expected.voxels).all()
        assert image.affine == pytest.approx(expected.affine_ras_mm, abs=1e-4)
        assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert np.abs(np.linalg.inv(volume.affine_ras_mm)[:3, :3]).min() > 1e-4  # case 2 is oblique


def test_seed_changes_patients(archive, tmp_path):
    other = make_archive(tmp_path, seed=4, dicom_patients=2, nifti_cases=1, shape=(22, 19, 17))
    ids = {text for text in archive.planted if text.startswith("MRN")}
    assert ids.isdisjoint(other.planted)
    assert content(other.images / "case_000.nii.gz") != content(archive.images / "case_000.nii.gz")


def test_command_writes_archive_into_empty_folder_only(tmp_path):
    command = [
        sys.executable,
        "-m",
        "medssl_phantoms",
        str(tmp_path / "out"),
        "--dicom-patients",
        "0",
        "--nifti-cases",
        "1",
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stdout.splitlines() == [
        "1 scans of 1 synthetic patients, 0 series without a scan",
        str(tmp_path / "out"),
    ]
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 2
    assert second.stderr == f"{tmp_path / 'out'} is not empty. Name a new folder.\n"


def test_files_have_old_time_stamp(archive):
    stamps = {path.stat().st_mtime for path in files_below(archive.folder).values()}
    assert stamps == {1_709_193_600.0}
