"""The commands around an archive: exit codes, key sentences, and that no name is printed."""

import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner
from written_dicom import Series, random_voxels

from medssl.cohort.manifest import read_manifest
from medssl_cli.main import app


@pytest.fixture
def medssl(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words, code=0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def archive(tmp_path):
    """One tilted CT, one derived MR and one text file, in folders that name people."""
    ct = Series(random_voxels((26, 22, 12)), patient="HN7734421")
    normal = np.cross(ct.row, ct.column)
    ct.step_mm = 4.0 * (np.cos(0.3) * normal + np.sin(0.3) * ct.column)
    ct.write(tmp_path / "archive" / "Qvortrup_Xenobia")
    mr = Series(random_voxels((26, 22, 12), seed=1), modality="MR", intercept=0.0, patient="HN7734421")
    mr.write(tmp_path / "archive" / "mr", lambda ds, k: setattr(ds, "ImageType", ["DERIVED", "PRIMARY", "MIP"]))
    (tmp_path / "archive" / "README.txt").write_text("hello")
    return tmp_path / "archive"


def test_ingest_report_and_explain_agree(tmp_path, medssl, archive):
    out = tmp_path / "cohort"
    shown = medssl("ingest", archive, "--out", out, "--workers", 0).output
    assert "DERIVED" in shown
    assert "next: medssl pretrain" in shown
    facts = json.loads(medssl("archive", "report", out, "--json", "--no-picture").stdout)
    assert (facts["accepted"], facts["reasons"], facts["gains"]) == (1, {"DERIVED": 1}, {"--include-derived": 1})
    example = facts["examples"]["DERIVED"][0]
    told = medssl("archive", "explain", out, example).output
    assert "DERIVED" in told
    assert "--include-derived" in told
    accepted = json.loads(medssl("archive", "explain", out, "IM0003", "--json").stdout)
    assert {one["verdict"] for one in accepted} == {"accepted", "DERIVED"}
    assert any("F_TILT" in flag for one in accepted for flag in one["flags"])
    assert "NOT_DICOM" in medssl("archive", "explain", out, "README.txt").output
    assert "has no file" in medssl("archive", "explain", out, "nobody.dcm", code=1).output
    for text in (shown, told, json.dumps(accepted)):
        assert "Xenobia" not in text
        assert "HN7734421" not in text
    assert "Xenobia" in medssl("archive", "explain", out, "IM0003", "--show-paths").output


def test_report_draws_picture_into_private_folder(tmp_path, medssl, archive):
    medssl("ingest", archive, "--out", tmp_path / "cohort", "--workers", 0)
    assert "overview.png" in medssl("archive", "report", tmp_path / "cohort").output
    assert (tmp_path / "cohort" / "private" / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_convert_writes_sheared_affine_and_no_identifier(tmp_path, medssl, archive):
    """File names and headers name no patient."""
    out, manifest = tmp_path / "nifti", tmp_path / "m.parquet"
    medssl("convert", archive, "--out", out, "--manifest", manifest, "--workers", 0)
    (path,) = out.iterdir()
    image = nibabel.load(path)
    (row,) = [row for row in read_manifest(manifest) if row.accepted]
    assert path.name == f"{row.scan_id}.nii.gz"
    np.testing.assert_allclose(image.affine, np.reshape(row.affine_ras_mm, (4, 4)), atol=1e-4)
    assert int(image.header["qform_code"]) == 0
    assert int(image.header["sform_code"]) == 1
    assert bytes(image.header["descrip"]).strip(b"\0") == b""
    data = path.read_bytes()
    assert data[3] & 8 == 0, "the gzip header holds a file name"
    assert data[4:8] == b"\0\0\0\0", "the gzip header holds a time"
    medssl("convert", archive, "--out", out, "--workers", 0, code=2)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not on the path; pip install dcm2niix")
def test_verify_agrees_with_dcm2niix(tmp_path, medssl):
    Series(random_voxels((26, 22, 12)), modality="MR", intercept=0.0).write(tmp_path / "a")
    assert "1 of 1 series agree" in medssl("archive", "verify", tmp_path / "a").output


def test_wrong_usage_exits_with_2(tmp_path, medssl, archive):
    assert "does not exist" in medssl("ingest", tmp_path / "no", "--out", tmp_path / "c", code=2).output
    assert "known" in medssl("archive", "verify", archive, "--against", "magic", code=2).output
    assert "no cohort" in medssl("archive", "report", archive, code=1).output


def test_ingest_without_scans_fails_with_reasons(tmp_path, medssl):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("nothing here")
    result = medssl("ingest", tmp_path / "a", "--out", tmp_path / "c", "--workers", 0, code=1)
    assert "NOT_DICOM" in result.output
    assert "no scan was accepted" in result.output


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes UTF-8 only")
def test_names_outside_utf_8_are_supported(tmp_path, medssl):
    """Disks of older systems: b"M\\xfcller" is Müller in Latin-1, and no text in UTF-8."""
    root = tmp_path / "archive"
    Series(random_voxels((40, 36, 32))).write(root / "x")
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(random_voxels((40, 36, 32), seed=4), affine), root / "x" / "s.nii.gz")
    (root / "x" / "s.nii.gz").rename(root / "x" / os.fsdecode(b"caf\xe9.nii.gz"))
    (root / os.fsdecode(b"r\xe9sum\xe9.txt")).write_text("hello")
    (root / "x").rename(root / os.fsdecode(b"M\xfcller"))
    assert json.loads(medssl("ingest", root, "--out", "unused", "--dry-run", "--json").stdout)["n_scans"] == 2
    assert json.loads(medssl("convert", root, "--out", tmp_path / "nifti", "--json").stdout)["n_scans"] == 2
    for loaded in (2, 0):
        report = json.loads(medssl("ingest", root, "--out", tmp_path / "cohort", "--json", "--workers", 0).stdout)
        assert (report["n_scans"], report["n_loaded"], report["reasons"]) == (2, loaded, {"NOT_DICOM": 1})
    found = medssl("archive", "explain", tmp_path / "cohort", os.fsdecode(b"caf\xe9.nii.gz"), "--show-paths").stdout
    assert r"M\udcfcller/caf\udce9.nii.gz" in found
    assert "NOT_DICOM" in medssl("archive", "explain", tmp_path / "cohort", os.fsdecode(b"r\xe9sum\xe9.txt")).stdout
    (root / os.fsdecode(b"M\xfcller")).rename(root / os.fsdecode(b"M\xfcller-2"))
    report = json.loads(medssl("ingest", root, "--out", tmp_path / "cohort", "--json", "--workers", 0).stdout)
    assert (report["n_scans"], report["reasons"]) == (2, {"NOT_DICOM": 1})


def test_out_folder_below_a_file_is_an_error(tmp_path, medssl, archive):
    (tmp_path / "file").write_text("x")
    for command in ("ingest", "convert"):
        told = medssl(command, archive, "--out", tmp_path / "file" / "c", code=2).output
        assert "file is a file. Choose another folder" in " ".join(told.split())


def test_damaged_index_page_is_a_clear_error(tmp_path, medssl, archive):
    out = tmp_path / "cohort"
    medssl("ingest", archive, "--out", out, "--workers", 0)
    path = out / "private" / "index.sqlite"
    with closing(sqlite3.connect(path)) as index:  # the page on which the table of files begins; opening reads others
        (size,) = index.execute("PRAGMA page_size").fetchone()
        (page,) = index.execute("SELECT rootpage FROM sqlite_master WHERE name = 'files'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    for words in (("ingest", archive, "--out", out, "--workers", 0), ("archive", "explain", out, "IM0003")):
        assert "index.sqlite is damaged" in medssl(*words, code=1).output


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float64"])
@pytest.mark.parametrize("most", [1000, 2**53])
def test_convert_keeps_nifti_values_of_any_type(tmp_path, medssl, dtype, most):
    kind = np.dtype(dtype)
    most = min(most, np.iinfo(kind).max) if kind.kind in "iu" else most
    voxels = np.random.default_rng(1).integers(0, most, (12, 10, 8), dtype=np.int64).astype(kind)
    (tmp_path / "a").mkdir()
    nibabel.Nifti1Image(voxels, np.diag([3.0, 3, 3.5, 1]), dtype=kind).to_filename(tmp_path / "a" / "x.nii.gz")
    medssl("convert", tmp_path / "a", "--out", tmp_path / "out", "--workers", 0)
    (path,) = (tmp_path / "out").iterdir()
    read = nibabel.load(path)
    np.testing.assert_array_equal(np.asanyarray(read.dataobj), voxels)
    if kind.itemsize == 8 and kind.kind in "iu" and most == 1000:
        assert read.get_data_dtype() == np.int32


def test_convert_checks_manifest_path_first(tmp_path, medssl, archive):
    out = tmp_path / "nifti"

    def said(manifest, code):
        result = medssl("convert", archive, "--out", out, "--workers", 0, "--manifest", manifest, code=code)
        return " ".join(result.output.split())

    assert "Make it, or name another path for --manifest." in said(tmp_path / "no" / "n.parquet", 2)
    assert "is a folder. Name a file for --manifest" in said(tmp_path, 2)
    assert not out.exists()
    said(out / "n.parquet", 0)
    assert (out / "n.parquet").is_file()
