"""Mutated and random files, DICOM and NIfTI: every one has a verdict, none raises anything else, and none takes long.

In a real ingest this runs in workers that may die; here it runs in this process, so that a crash would be seen.
MEDSSL_MUTATIONS=10000
runs many more than CI does.
"""

import gzip
import os
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from written_dicom import Series, random_voxels, save

from medssl.archive.limits import Limits
from medssl.archive.nifti.read import read_volume
from medssl.archive.plan.dicom import plan_series
from medssl.archive.plan.nifti import rejected_file
from medssl.archive.privacy.pseudonyms import Pseudonyms
from medssl.archive.rejection import Rejected
from medssl.archive.scan.recognise import scan_file
from medssl.archive.series.assemble import Rules
from medssl.archive.sources.walk import FileStamp
from medssl.archive.voxels.scan import load_planned_scan

COUNT = int(os.environ.get("MEDSSL_MUTATIONS", "160"))
KEY = Pseudonyms(b"k" * 32)
LIMITS = Limits(field_of_view_mm=0.0, voxels=2**24, scan_bytes=2**26, header_bytes=2**20, frames_header_bytes=2**22)
RULES = Rules(min_slices=1, include_derived=True, limits=LIMITS)
SECONDS_EACH = 5.0


def mutated(data: bytes, draw: np.random.Generator) -> bytes:
    """One of several ways in which files go wrong."""
    out = bytearray(data)
    kind = draw.integers(0, 7)
    start = int(draw.integers(0, max(1, min(len(out), 1500))))
    if kind == 0:
        return bytes(out[: int(draw.integers(0, len(out)))])
    if kind == 1:
        for _ in range(int(draw.integers(1, 20))):
            out[int(draw.integers(0, len(out)))] = int(draw.integers(0, 256))
    elif kind == 2:
        out[start : start + 4] = draw.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\xfe\xff\0\xe0"])
    elif kind == 3:
        del out[start : start + int(draw.integers(1, 64))]
    elif kind == 4:
        out[start:start] = bytes(draw.integers(0, 256, int(draw.integers(1, 64)), np.uint8))
    elif kind == 5:
        length = int(draw.integers(8, 400))
        out[start : start + length] = out[start + length : start + 2 * length]
    else:
        return bytes(draw.integers(0, 256, int(draw.integers(0, 4000)), np.uint8))
    return bytes(out)


def verdict(path: Path, data: bytes) -> str:
    """The file through all three layers; anything but a verdict propagates and fails the test."""
    path.write_bytes(data)
    stamp = FileStamp(len(data), path.stat().st_mtime_ns)
    file = scan_file(path, path.parent, stamp, limits=LIMITS)
    if file.reason is not None:
        assert rejected_file(file, KEY).reason == file.reason
        return file.reason
    if file.kind == "nifti":
        try:
            read_volume(path, limits=LIMITS)
        except Rejected as rejected:
            return rejected.reason
        return "accepted"
    found = "accepted"
    for scan in plan_series(file.series, [file], KEY, RULES):
        if scan.load_plan is None:
            found = scan.planned.reason
            continue
        try:
            load_planned_scan(scan.load_plan, limits=LIMITS)
        except Rejected as rejected:
            found = rejected.reason
    return found


def seeds(tmp_path: Path) -> dict[str, bytes]:
    """Sound files of several kinds."""
    import imagecodecs
    from pydicom.encaps import encapsulate
    from pydicom.uid import ImplicitVRLittleEndian

    series = Series(random_voxels((20, 16, 1)))
    ds = series.dataset(0)
    ds.SliceThickness = 2.0
    save(ds, tmp_path / "native")
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(tmp_path / "implicit", enforce_file_format=True, implicit_vr=True, little_endian=True)
    plane = np.ascontiguousarray(series.voxels[:, :, 0].T)
    encoders = {
        "1.2.840.10008.1.2.4.90": lambda: imagecodecs.jpeg2k_encode(plane, reversible=True, codecformat="j2k"),
        "1.2.840.10008.1.2.4.80": lambda: imagecodecs.jpegls_encode(plane),
        "1.2.840.10008.1.2.4.70": lambda: imagecodecs.jpeg8_encode(plane, lossless=True, bitspersample=16),
    }
    for syntax, encode in encoders.items():
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([encode()])
        ds["PixelData"].is_undefined_length = True
        save(ds, tmp_path / syntax)
    image = nibabel.Nifti1Image(np.arange(12 * 10 * 8, dtype=np.int16).reshape(12, 10, 8), np.diag([2.0, 2, 2, 1]))
    nibabel.save(image, tmp_path / "plain.nii")
    return {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}


def test_unmutated_files_are_accepted(tmp_path):
    (tmp_path / "seeds").mkdir()
    for name, data in seeds(tmp_path / "seeds").items():
        assert verdict(tmp_path / f"x.{'nii' if 'nii' in name else 'dcm'}", data) == "accepted", name


def test_mutated_files_have_outcome_and_never_crash(tmp_path):
    (tmp_path / "seeds").mkdir()
    kinds = seeds(tmp_path / "seeds")
    draw = np.random.default_rng(20240611)
    verdicts: dict[str, int] = {}
    for number in range(COUNT):
        name = list(kinds)[number % len(kinds)]
        data = mutated(kinds[name], draw)
        if "nii" in name and number % 3 == 0:
            data = gzip.compress(data, 1)
        started_s = time.process_time()
        found = verdict(tmp_path / f"x{'.nii' if 'nii' in name else ''}", data)
        assert time.process_time() - started_s < SECONDS_EACH, (number, name, found)
        verdicts[found] = verdicts.get(found, 0) + 1
    assert len(verdicts) > 4


@pytest.mark.parametrize("depth", [17, 3000])
def test_nested_sequences_beyond_limit_are_rejected(tmp_path, depth):
    ds = Series(random_voxels((20, 16, 1))).dataset(0)
    save(ds, tmp_path / "x")
    head = b"\x08\x00\x11\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    data = (tmp_path / "x").read_bytes()
    where = data.index(b"\x10\x00\x20\x00LO")
    assert verdict(tmp_path / "deep", data[:where] + head * depth + data[where:]) == "TOO_DEEP"


def test_deflate_bomb_is_rejected_without_inflating(tmp_path):
    import zlib

    ds = Series(random_voxels((20, 16, 1))).dataset(0)
    save(ds, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    from medssl.archive.dicom.dataset import data_start

    begin = data_start(data)
    meta = data[:begin].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta.replace(b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99")
    private = b"\x09\x00\x01\x10UN\0\0" + (200_000_000).to_bytes(4, "little") + bytes(200_000_000)
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeezed.compress(data[begin : begin + 60] + private) + squeezed.flush()
    assert verdict(tmp_path / "bomb", meta + body) in ("DEFLATE_LIMIT", "TRUNCATED", "BAD_HEADER")


@pytest.mark.parametrize(("rows", "columns", "frames"), [(65535, 65535, 1), (65535, 65535, 100000), (30000, 30000, 1)])
def test_absurd_dimensions_are_rejected_without_allocating(tmp_path, rows, columns, frames):
    ds = Series(random_voxels((20, 16, 1))).dataset(0)
    ds.Rows, ds.Columns, ds.SliceThickness = rows, columns, 2.0
    if frames > 1:
        ds.NumberOfFrames = frames
    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"):
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        save(ds, tmp_path / "x")
        data = (
            (tmp_path / "x")
            .read_bytes()
            .replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\x00" + syntax.encode()[:19].ljust(20, b"\0"))
        )
        assert verdict(tmp_path / "y", data) in (
            "TRUNCATED",
            "MULTIFRAME_NO_GEOMETRY",
            "BAD_PIXELS",
            "TOO_LARGE",
            "UNSUPPORTED_SYNTAX",
        )


@pytest.mark.parametrize("told", [30000, 20])
def test_tiny_codestream_of_huge_image_is_not_decoded(tmp_path, told):
    """JPEG 2000: SIZ says 30000 x 30000 (ISO/IEC 15444-1 A.5.1); the DICOM header says the same, or the truth."""
    import imagecodecs
    from pydicom.encaps import encapsulate

    ds = Series(random_voxels((20, 16, 1))).dataset(0)
    plane = np.zeros((16, 20), np.uint16)
    code = bytearray(imagecodecs.jpeg2k_encode(plane, reversible=True, codecformat="j2k"))
    siz = code.index(b"\xff\x51")
    code[siz + 6 : siz + 14] = 2 * (30000).to_bytes(4, "big")
    ds.Columns, ds.Rows = (told, told) if told == 30000 else (20, 16)
    ds.SliceThickness = 2.0
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    ds.PixelData = encapsulate([bytes(code)])
    ds["PixelData"].is_undefined_length = True
    save(ds, tmp_path / "x")
    started_s = time.process_time()
    assert verdict(tmp_path / "y", (tmp_path / "x").read_bytes()) in ("BAD_PIXELS", "TOO_LARGE")
    assert time.process_time() - started_s < 1.0
