"""Headers that break the standard: read by pydicom where it arrives at the pixels, accepted where the geometry is
proven, and left out for the first parser's reason otherwise.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from planned_scans import LIMITS, accepted, assert_is
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian
from written_dicom import Series, random_voxels

from medssl.archive.scan.recognise import scan_file
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.reasons import Flag, Reason

# What stands before the patient id of every file, and what is put there.
PATIENT = b"\x10\x00\x20\x00LO"
IMPLICIT = b"\x09\x00\x01\x10" + (6).to_bytes(4, "little") + b"abcdef"
UNKNOWN = b"\x09\x00\x01\x10ZZ\x06\x00abcdef"
NESTED = (
    b"\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    + IMPLICIT
    + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
)
BROKEN = {"an implicit element among explicit ones": IMPLICIT, "an unknown VR": UNKNOWN, "both in a sequence": NESTED}


def broken(path: Path, element: bytes, before: bytes = PATIENT) -> None:
    data = path.read_bytes()
    where = data.index(before)
    path.write_bytes(data[:where] + element + data[where:])


def verdict(path: Path):
    facts = path.stat()
    return scan_file(path, path.parent, FileStamp(facts.st_size, facts.st_mtime_ns), limits=LIMITS)


@pytest.mark.parametrize("element", BROKEN.values(), ids=BROKEN.keys())
def test_tolerant_header_gives_same_scan_and_flag(tmp_path, element):
    series = Series(random_voxels(), slope=2.0)
    for path in series.write(tmp_path / "a"):
        broken(path, element)
    ((row, volume),) = accepted(tmp_path / "a")
    assert_is(volume, series)
    assert row.flags == (Flag.F_TOLERANT_PARSE,)
    assert row.n_files == 9


def test_tolerant_header_with_compressed_pixels(tmp_path):
    series = Series(random_voxels())

    def edit(ds: pydicom.Dataset, k: int) -> None:
        plane = np.ascontiguousarray(series.voxels[:, :, k].T)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"
        ds.PixelData = encapsulate([imagecodecs.jpegls_encode(plane)])
        ds["PixelData"].is_undefined_length = True

    for path in series.write(tmp_path / "a", edit):
        broken(path, UNKNOWN)
    ((row, volume),) = accepted(tmp_path / "a")
    assert_is(volume, series)
    assert Flag.F_TOLERANT_PARSE in row.flags


def test_tolerant_header_with_big_endian_pixels(tmp_path):
    series = Series(random_voxels())
    (tmp_path / "a").mkdir()
    for k in range(9):
        ds = series.dataset(k)
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        ds.PixelData = np.ascontiguousarray(series.voxels[:, :, k].T).astype(">u2").tobytes()
        path = tmp_path / "a" / f"{k}"
        ds.save_as(path, enforce_file_format=True, little_endian=False, implicit_vr=False)
        broken(path, b"\x00\x09\x10\x01ZZ\x00\x06abcdef", before=b"\x00\x10\x00\x20LO")
    ((row, volume),) = accepted(tmp_path / "a")
    assert_is(volume, series)
    assert Flag.F_TOLERANT_PARSE in row.flags


def cut_position(data: bytes) -> bytes:
    """The position's element claims so many bytes more that a reader goes on in the middle of another one."""
    where = data.index(b"\x20\x00\x32\x00DS")
    return data[: where + 6] + (400).to_bytes(2, "little") + data[where + 8 :]


def lost_order(data: bytes) -> bytes:
    where = data.index(PATIENT)
    return data[:where] + b"\x60\x00\x01\x10ZZ\x06\x00abcdef" + data[where:]


def deflated_name(data: bytes) -> bytes:
    """Names the deflated syntax somewhere in its first bytes, as a bomb for pydicom would."""
    where = data.index(PATIENT)
    return data[:where] + b"\x09\x00\x01\x10ZZ\x16\x001.2.840.10008.1.2.1.99" + data[where:]


@pytest.mark.parametrize("damage", [cut_position, lost_order, deflated_name])
def test_tolerant_reader_keeps_reason_if_pydicom_fails(tmp_path, damage: Callable[[bytes], bytes]):
    path = Series(random_voxels()).write(tmp_path / "a")[0]
    broken(path, UNKNOWN)
    path.write_bytes(damage(path.read_bytes()))
    found = verdict(path)
    assert found.reason is Reason.BAD_HEADER
    assert "unknown value representation" in found.detail


def test_tolerant_reader_respects_header_limit(tmp_path):
    path = Series(random_voxels()).write(tmp_path / "a")[0]
    long = LIMITS.header_bytes + 2
    broken(path, UNKNOWN)
    broken(path, b"\x11\x00\x01\x10OB\0\0" + long.to_bytes(4, "little") + bytes(long), before=b"\x18\x00")
    assert verdict(path).reason in (Reason.BAD_HEADER, Reason.HEADER_LIMIT)


def test_tolerant_reader_silences_pydicom(tmp_path, caplog, capfd):
    path = Series(random_voxels(), patient="HN7734421").write(tmp_path / "a")[0]
    broken(path, UNKNOWN)
    with warnings.catch_warnings(record=True) as said, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        assert verdict(path).reason is None
    assert not said
    assert not caplog.records
    assert "HN7734421" not in "".join(capfd.readouterr())
    assert not logging.getLogger("pydicom").disabled
