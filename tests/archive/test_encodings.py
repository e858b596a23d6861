"""The same series in other clothes: enhanced, in a grid, re-encoded, stripped; always the same scan."""

from pathlib import Path

import numpy as np
import pytest
from planned_scans import accepted, assert_is
from written_dicom import Series, random_voxels, save


def enhanced(series: Series, tmp_path: Path) -> None:
    """The series as one enhanced multi-frame object, geometry per frame, frames in scrambled order."""
    import pydicom
    from pydicom.sequence import Sequence

    def holding(**values):
        item = pydicom.Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        return Sequence([item])

    whole = series.dataset(0)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(whole, name)
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    whole.SharedFunctionalGroupsSequence = holding(
        PlaneOrientationSequence=holding(ImageOrientationPatient=series.dataset(0).ImageOrientationPatient),
        PixelMeasuresSequence=holding(PixelSpacing=series.dataset(0).PixelSpacing, SliceThickness=4.0),
        PixelValueTransformationSequence=holding(RescaleSlope=series.slope, RescaleIntercept=series.intercept),
    )
    order = np.random.default_rng(5).permutation(series.voxels.shape[2])
    frames = []
    for k in order:
        item = pydicom.Dataset()
        item.PlanePositionSequence = holding(ImagePositionPatient=series.dataset(int(k)).ImagePositionPatient)
        frames.append(item)
    whole.PerFrameFunctionalGroupsSequence = Sequence(frames)
    whole.NumberOfFrames = len(order)
    whole.PixelData = b"".join(series.dataset(int(k)).PixelData for k in order)
    tmp_path.mkdir()
    save(whole, tmp_path / "enhanced")


def test_enhanced_object_equals_classic_export(tmp_path):
    series = Series(random_voxels())
    series.write(tmp_path / "classic")
    enhanced(series, tmp_path / "enhanced")
    ((classic_row, classic),) = accepted(tmp_path / "classic")
    ((row, volume),) = accepted(tmp_path / "enhanced")
    assert_is(volume, series)
    np.testing.assert_array_equal(volume.voxels, classic.voxels)
    assert (row.shape, row.affine_ras_mm, row.modality) == (classic_row.shape, classic_row.affine_ras_mm, "CT")


def test_uih_grid_is_cut_into_slices(tmp_path):
    import pydicom

    series = Series(random_voxels((6, 5, 7)), modality="MR", intercept=0.0)
    ds = series.dataset(0)
    grid = np.zeros((3 * 5, 3 * 6), np.uint16)
    tiles = []
    for k in range(7):
        down, right = divmod(k, 3)
        grid[5 * down : 5 * down + 5, 6 * right : 6 * right + 6] = series.voxels[:, :, k].T
        item = pydicom.Dataset()
        item.ImagePositionPatient = series.dataset(k).ImagePositionPatient
        tiles.append(item)
    ds.Manufacturer, ds.ImageType = "UIH", ["ORIGINAL", "PRIMARY", "M", "VFRAME"]
    ds.Rows, ds.Columns, ds.PixelData = *grid.shape, grid.tobytes()
    ds.add_new(0x00650010, "LO", "Image Private Header")
    ds.add_new(0x00651050, "DS", "7")
    ds.add_new(0x00651051, "SQ", tiles)
    (tmp_path / "s").mkdir()
    save(ds, tmp_path / "s" / "grid")
    ((row, volume),) = accepted(tmp_path)
    assert_is(volume, series)
    assert row.flags == ("F_UIH_GRID",)
    assert row.n_files == 1


@pytest.mark.parametrize("vr", ["OW", "OB"])
@pytest.mark.parametrize("frames", ["one a file", "all in one"])
def test_big_endian_8_bit_pixels_in_words_and_bytes(tmp_path, vr, frames):
    """Eleven by fifteen pixels: every second frame of an enhanced object begins within a word."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian

    series = Series(random_voxels((15, 11, 9), high=256))
    series.write(tmp_path / "s") if frames == "one a file" else enhanced(series, tmp_path / "s")
    for path in (tmp_path / "s").iterdir():
        ds = pydicom.dcmread(path)
        pixels = ds.pixel_array.astype(np.uint8).tobytes()
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        pixels += bytes(len(pixels) % 2)
        ds.PixelData = np.frombuffer(pixels, "<u2").byteswap().tobytes() if vr == "OW" else pixels
        ds["PixelData"].VR = vr
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(path, ds, enforce_file_format=True, little_endian=False, implicit_vr=False)
        read = pydicom.dcmread(path).pixel_array.tobytes()
        assert read == pixels[: len(read)]
    ((_, volume),) = accepted(tmp_path)
    assert_is(volume, series)


@pytest.mark.parametrize("syntax", ["rle", "jpeg2000", "jpegls", "lossless", "deflated", "implicit", "big"])
def test_reencoded_series_is_same_scan(tmp_path, syntax):
    import imagecodecs
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    series = Series(random_voxels((14, 11, 5)))
    uids = {
        "rle": "1.2.840.10008.1.2.5", "jpeg2000": "1.2.840.10008.1.2.4.90", "jpegls": "1.2.840.10008.1.2.4.80",
        "lossless": "1.2.840.10008.1.2.4.70",
        "deflated": "1.2.840.10008.1.2.1.99", "implicit": "1.2.840.10008.1.2", "big": "1.2.840.10008.1.2.2",
    }  # fmt: skip
    encoders = {
        "jpeg2000": lambda plane: imagecodecs.jpeg2k_encode(plane, reversible=True, codecformat="j2k"),
        "jpegls": imagecodecs.jpegls_encode,
        "lossless": lambda plane: imagecodecs.jpeg8_encode(plane, lossless=True, bitspersample=16),
    }
    (tmp_path / "s").mkdir()
    for k in range(5):
        ds = series.dataset(k)
        plane = np.ascontiguousarray(series.voxels[:, :, k].T)
        if syntax == "rle":
            ds.compress(UID(uids["rle"]), encoding_plugin="pydicom", generate_instance_uid=False)
        elif syntax in encoders:
            ds.PixelData = encapsulate([encoders[syntax](plane)])
            ds["PixelData"].is_undefined_length = True
        elif syntax == "big":
            ds.PixelData = plane.astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = uids[syntax]
        ds.save_as(
            tmp_path / "s" / str(k),
            enforce_file_format=True,
            implicit_vr=syntax == "implicit",
            little_endian=syntax != "big",
        )
    ((_, volume),) = accepted(tmp_path)
    assert_is(volume, series)


def test_file_without_preamble_or_meta_information_is_read(tmp_path):
    series = Series(random_voxels())
    for path in series.write(tmp_path / "s"):
        data = path.read_bytes()
        start = data.index(b"\x08\x00\x08\x00CS")
        path.write_bytes(data[start:])
    ((row, volume),) = accepted(tmp_path)
    assert_is(volume, series)
    assert row.flags == ("F_NO_PREAMBLE",)


def test_trailing_bytes_after_pixels_are_ignored(tmp_path):
    series = Series(random_voxels())
    for path in series.write(tmp_path / "s", lambda ds, k: ds.add_new(0xFFFCFFFC, "OB", b"\0" * 126)):
        assert path.read_bytes()[-126:] == b"\0" * 126
    ((_, volume),) = accepted(tmp_path)
    assert_is(volume, series)


def test_philips_magnitude_and_phase_are_two_scans(tmp_path):
    """Same positions, same instance numbers, told apart by image type alone, each with a scale of its own."""
    magnitude = Series(random_voxels(), modality="MR", slope=2.0, intercept=0.0)
    phase = Series(
        random_voxels(seed=1),
        modality="MR",
        slope=0.25,
        intercept=-500.0,
        series_uid=magnitude.series_uid,
        study_uid=magnitude.study_uid,
    )
    magnitude.write(
        tmp_path / "s", lambda ds, k: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"])
    )
    phase.write(
        tmp_path / "s", lambda ds, k: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"])
    )
    ((_, volume),) = accepted(tmp_path)
    assert_is(volume, magnitude)
    both = accepted(tmp_path, include_derived=True)
    assert [row.n_volumes for row, _ in both] == [1, 1]
    assert_is(next(volume for _, volume in both if volume.voxels.min() < 0), phase)


def ge(signal: int, b_value: int | None = None):
    """What GE writes into a slice beside its image: which part of the signal it is, and its diffusion weighting."""

    def edit(ds, k):
        ds.Manufacturer, ds.ImageType = "GE MEDICAL SYSTEMS", ["ORIGINAL", "PRIMARY", "OTHER"]
        ds.add_new((0x0043, 0x0010), "LO", "GEMS_PARM_01")
        ds.add_new((0x0043, 0x102F), "SS", signal)
        if b_value is not None:
            ds.add_new((0x0043, 0x1039), "IS", [b_value, 8, 0, 0])

    return edit


@pytest.mark.parametrize("before", [0, 12_000])
def test_ge_private_element_gives_image_type(tmp_path, before):
    """Real headers have some ten kilobytes of other private groups before it."""

    def of_part(part):
        def edit(ds, k):
            ge(part)(ds, k)
            ds.add_new((0x0029, 0x0010), "LO", "GEMS_OTHER_01")
            ds.add_new((0x0029, 0x1001), "OB", bytes(before))

        return edit

    parts = [Series(random_voxels(seed=part), modality="MR", intercept=0.0) for part in range(4)]
    for part, series in enumerate(parts):
        series.series_uid, series.study_uid = parts[0].series_uid, parts[0].study_uid
        series.write(tmp_path / "s", of_part(part))
    ((_, volume),) = accepted(tmp_path)
    assert_is(volume, parts[0])
    everything = accepted(tmp_path, include_derived=True)
    assert [row.n_volumes for row, _ in everything] == [1] * 4
    for series in parts:
        same = [volume for _, volume in everything if np.isclose(volume.voxels.sum(), series.voxels.sum())]
        assert_is(*same, series)


def test_ge_private_element_of_other_vendor_is_ignored(tmp_path):
    series = Series(random_voxels(), modality="MR", intercept=0.0)

    def other(ds, k):
        ge(1)(ds, k)
        ds[0x0043, 0x0010].value = "SOMEBODY ELSE"

    series.write(tmp_path / "s", other)
    ((_, volume),) = accepted(tmp_path)
    assert_is(volume, series)


def test_ge_b_values_are_volumes_of_one_scan(tmp_path):
    parts = [Series(random_voxels(seed=part), modality="MR", intercept=0.0) for part in range(2)]
    for series, b_value in zip(parts, (1_000_000_000, 1_000_000_750), strict=True):
        series.series_uid, series.study_uid = parts[0].series_uid, parts[0].study_uid
        series.write(tmp_path / "s", ge(0, b_value))
    found = accepted(tmp_path)
    assert [row.n_volumes for row, _ in found] == [2, 2]
    for series, (_, volume) in zip(parts, found, strict=True):
        assert_is(volume, series)
