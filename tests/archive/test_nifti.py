"""NIfTI: the same voxels and affine as nibabel gives, and a refusal wherever a field is in doubt."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medssl.archive.checks import check_voxels
from medssl.archive.limits import Limits
from medssl.archive.nifti.read import load_nifti, read_volume
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason
from medssl.errors import DataError
from medssl.geometry import Volume
from medssl.ingestion.one_scan import load_scan

SHAPE = (13, 8, 10)
OBLIQUE = np.array([[2.0, 0.3, 0.1, -20.0], [-0.3, 2.5, 0.2, 5.0], [0.0, -0.2, 3.0, 11.0], [0, 0, 0, 1.0]])
SMALL = Limits(field_of_view_mm=5.0)


def image(dtype="i2", *, kind=nibabel.Nifti1Image, shape=SHAPE, affine=OBLIQUE) -> nibabel.Nifti1Image:
    voxels = np.random.default_rng(3).integers(0, 100, shape).astype(dtype)
    made = kind(voxels, affine, dtype=dtype)
    made.set_sform(affine, code=1)
    made.set_qform(np.diag([2.0, 2.5, 3.0, 1.0]), code=0)
    return made


def edited(path: Path, offset: int, form: str, *values: float) -> Path:
    """Overwrite a field of the header of an uncompressed NIfTI-1 file."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + form, data, offset, *values)
    path.write_bytes(data)
    return path


def saved(tmp_path: Path, name: str = "scan.nii", **options) -> Path:
    path = tmp_path / name
    nibabel.save(image(**options), path)
    return path


def reason_of(path: Path, limits: Limits = SMALL) -> Reason:
    with pytest.raises(Rejected) as caught:
        read_volume(path, limits=limits)
    return caught.value.reason


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.hdr"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", "i8"])
def test_voxels_and_affine_equal_nibabel(tmp_path, name, dtype):
    kind = nibabel.Nifti1Pair if name.endswith("hdr") else nibabel.Nifti1Image
    path = saved(tmp_path, name, dtype=dtype, kind=kind)
    volume = load_nifti(path, limits=SMALL)
    expected = nibabel.load(path)
    np.testing.assert_array_equal(volume.voxels, np.asanyarray(expected.dataobj))
    np.testing.assert_allclose(volume.affine_ras_mm, expected.affine, atol=1e-6)


def test_nifti_2_is_read(tmp_path):
    path = saved(tmp_path, kind=nibabel.Nifti2Image)
    np.testing.assert_allclose(load_nifti(path, limits=SMALL).affine_ras_mm, OBLIQUE, atol=1e-6)


def test_big_endian_file_becomes_native(tmp_path):
    made = image()
    swapped = nibabel.Nifti1Image(np.asanyarray(made.dataobj), None, made.header.as_byteswapped(">"))
    nibabel.save(swapped, tmp_path / "big.nii")
    volume = load_nifti(tmp_path / "big.nii", limits=SMALL)
    assert volume.voxels.dtype.isnative
    np.testing.assert_array_equal(volume.voxels, np.asanyarray(made.dataobj))


def test_qform_alone_gives_nibabel_affine(tmp_path):
    made = image()
    rotation = nibabel.eulerangles.euler2mat(0.3, -0.2, 0.5)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * (2.0, 2.5, -3.0), (4.0, -5.0, 6.0)
    made.set_sform(None, code=0)
    made.set_qform(affine, code=1)
    nibabel.save(made, tmp_path / "q.nii")
    np.testing.assert_allclose(load_nifti(tmp_path / "q.nii", limits=SMALL).affine_ras_mm, affine, atol=1e-5)


def test_scaling_ignores_nan_and_zero_slope(tmp_path):
    path = saved(tmp_path)
    stored = np.asanyarray(nibabel.load(path).dataobj)
    edited(path, 112, "2f", 0.5, -3.0)
    np.testing.assert_allclose(load_nifti(path, limits=SMALL).voxels, stored * 0.5 - 3.0)
    for slope in (0.0, float("nan")):
        edited(path, 112, "2f", slope, 7.0)
        np.testing.assert_array_equal(load_nifti(path, limits=SMALL).voxels, stored)


def test_units_are_converted_to_millimetres(tmp_path):
    for code, factor in ((1, 1e-3), (3, 1e3)):
        made = image(affine=OBLIQUE * np.array([[factor]] * 3 + [[1.0]]))
        nibabel.save(made, tmp_path / "units.nii")
        edited(tmp_path / "units.nii", 123, "B", code)
        np.testing.assert_allclose(load_nifti(tmp_path / "units.nii", limits=SMALL).affine_ras_mm, OBLIQUE, atol=1e-3)


def test_gzip_named_nii_with_trailing_garbage_is_read(tmp_path):
    path = saved(tmp_path, "scan.nii.gz")
    path.write_bytes(path.read_bytes() + b"trailing garbage")
    path.rename(tmp_path / "scan.nii")
    np.testing.assert_array_equal(
        load_nifti(tmp_path / "scan.nii", limits=SMALL).voxels, np.asanyarray(image().dataobj)
    )


def test_gzip_members_are_concatenated(tmp_path):
    data = saved(tmp_path).read_bytes()
    (tmp_path / "members.nii.gz").write_bytes(
        b"".join(gzip.compress(part) for part in (data[:200], data[200:900], data[900:]))
    )
    np.testing.assert_array_equal(
        load_nifti(tmp_path / "members.nii.gz", limits=SMALL).voxels, np.asanyarray(image().dataobj)
    )


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_truncated_file_is_rejected(tmp_path, compress, kept):
    path = saved(tmp_path, "scan.nii.gz" if compress else "scan.nii")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert reason_of(path) is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("offset", "form", "values", "reason"),
    [
        (40, "8h", (3, 32767, 32767, 32767, 1, 1, 1, 1), Reason.TOO_LARGE),
        (40, "8h", (3, 1290, 1290, 1290, 1, 1, 1, 1), Reason.TOO_LARGE),
        (40, "8h", (3, 100, 100, 100, 1, 1, 1, 1), Reason.TRUNCATED),
        (40, "8h", (3, -4, 8, 10, 1, 1, 1, 1), Reason.BAD_HEADER),
        (40, "8h", (9, 13, 8, 10, 1, 1, 1, 1), Reason.BAD_HEADER),
        (40, "8h", (2, 13, 80, 1, 1, 1, 1, 1), Reason.NOT_3D),
        (40, "8h", (4, 13, 8, 5, 2, 1, 1, 1), Reason.NOT_3D),
        (70, "h", (128,), Reason.NOT_SCALAR),
        (70, "h", (32,), Reason.NOT_SCALAR),
        (254, "h", (0,), Reason.NO_GEOMETRY),
        (280, "4f", (0.0, 0.0, 0.0, 0.0), Reason.BAD_GEOMETRY),
        (280, "f", (float("nan"),), Reason.BAD_GEOMETRY),
        (280, "f", (900.0,), Reason.OUT_OF_RANGE),
        (108, "f", (float("nan"),), Reason.BAD_HEADER),
        (108, "f", (1e9,), Reason.TRUNCATED),
        (112, "2f", (float("inf"), 0.0), Reason.BAD_NUMBER),
        (344, "4s", (b"\0\0\0\0",), Reason.NO_GEOMETRY),
        (344, "4s", (b"abcd",), Reason.NO_GEOMETRY),
    ],
)
def test_invalid_header_field_has_its_reason(tmp_path, offset, form, values, reason):
    path = saved(tmp_path)
    if form == "4f":
        for row in range(3):
            edited(path, 280 + 16 * row, "4f", *values)
    else:
        edited(path, offset, form, *values)
    found = reason_of(path)
    assert found is reason or (reason is Reason.BAD_GEOMETRY and found is Reason.TILT_TOO_LARGE)


def test_sform_wins_over_qform_with_flag(tmp_path):
    from medssl.archive.nifti.read import HEADER_BYTES, parse_header

    made = image()
    made.set_qform(np.diag([2.0, 2.5, 3.0, 1.0]), code=1)
    nibabel.save(made, tmp_path / "both.nii")
    header = parse_header((tmp_path / "both.nii").read_bytes()[:HEADER_BYTES], limits=SMALL)
    assert header.flags == ("F_QFORM_SFORM_DIFF",)
    np.testing.assert_allclose(header.affine_ras_mm, OBLIQUE, atol=1e-6)


def test_gzip_bomb_is_rejected_without_inflating(tmp_path):
    """1024^3 floats of zeros, as in reference/ingest.md section 6; only the header is ever looked at."""
    header = bytearray(saved(tmp_path).read_bytes()[:352])
    struct.pack_into("<8h", header, 40, 3, 1024, 1024, 1024, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 16, 32)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(bytes(header) + b"\0" * 4_000_000))
    assert reason_of(tmp_path / "bomb.nii.gz") is Reason.TOO_LARGE


def test_oversized_header_is_rejected_without_allocating(tmp_path):
    path = edited(saved(tmp_path), 40, "8h", 3, 1000, 1000, 1000, 1, 1, 1, 1)
    assert reason_of(path, Limits(field_of_view_mm=5.0, scan_bytes=2**40, voxels=2**40)) is Reason.TRUNCATED


def test_load_nifti_error_names_file_and_remedy(tmp_path):
    path = edited(saved(tmp_path), 254, "h", 0)
    with pytest.raises(
        DataError, match=r"scan\.nii: sform_code and qform_code are both 0 \(NO_GEOMETRY\)\. Nothing is guessed"
    ):
        load_nifti(path)


@pytest.mark.parametrize("most", [1e39, -1e300])
def test_values_beyond_float32_are_rejected(tmp_path, most):
    """The largest value that float32 can hold is still accepted."""
    voxels = np.random.default_rng(3).random((12, 10, 8)) * most
    with pytest.raises(Rejected, match="beyond the range of 32-bit floats") as caught:
        check_voxels(Volume(voxels, np.eye(4)))
    assert caught.value.reason is Reason.NAN_VOXELS
    largest = float(np.finfo(np.float32).max)
    check_voxels(Volume(voxels / np.abs(voxels).max() * largest, np.eye(4)))
    nibabel.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1]), dtype="f8").to_filename(tmp_path / "x.nii")
    with pytest.raises(DataError, match="NAN_VOXELS"):
        load_scan(tmp_path / "x.nii")
