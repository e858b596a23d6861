"""DICOM series with a known answer: what is accepted, split or left out, and where every voxel then lies."""

import numpy as np
import pytest
from planned_scans import LIMITS, accepted, assert_is, planned, reasons
from written_dicom import Series, oblique, random_voxels, save

from medssl.archive.voxels.scan import load_planned_scan
from medssl.errors import DataError
from medssl.ingestion.one_scan import load_scan


def test_oblique_series_has_closed_form_affine(tmp_path):
    """The files are in shuffled order."""
    series = Series(random_voxels())
    paths = series.write(tmp_path / "s")
    for path, number in zip(paths, np.random.default_rng(1).permutation(len(paths)), strict=True):
        path.rename(tmp_path / "s" / f"x{number}.junk")
    ((row, volume),) = accepted(tmp_path)
    assert_is(volume, series)
    assert volume.voxels.dtype == np.int16
    assert (row.modality, row.shape, row.n_files, row.flags) == ("CT", (14, 11, 9), 9, ())


def test_slices_in_reverse_order_are_same_scan(tmp_path):
    series = Series(random_voxels())
    series.step_mm = -series.step_mm
    series.write(tmp_path / "s")
    ((_, volume),) = accepted(tmp_path)
    assert_is(volume, series)


def test_manifest_depends_neither_on_file_names_nor_order(tmp_path):
    series = Series(random_voxels())
    paths = series.write(tmp_path / "a")
    (tmp_path / "b" / "c").mkdir(parents=True)
    for number, path in enumerate(reversed(paths)):
        (tmp_path / "b" / ("c" if number % 2 else "") / f"{number:03d}.dcm").write_bytes(path.read_bytes())
    one, other = planned(tmp_path / "a"), planned(tmp_path / "b")
    assert [row for row, _ in one] == [row for row, _ in other]


def test_tilted_gantry_gives_sheared_affine(tmp_path):
    series = Series(random_voxels())
    normal = np.cross(series.row, series.column)
    series.step_mm = 4.0 * (np.cos(np.radians(18)) * normal + np.sin(np.radians(18)) * series.column)
    series.write(tmp_path / "s")
    ((row, volume),) = accepted(tmp_path)
    assert row.flags == ("F_TILT",)
    assert_is(volume, series)


def test_implausible_geometry_of_slices_is_rejected(tmp_path):
    """Too much tilt, a sideways jump and direction cosines that are not orthonormal."""
    steep = Series(random_voxels())
    steep.step_mm = 4.0 * (np.cross(steep.row, steep.column) + 0.9 * steep.column)
    steep.write(tmp_path / "steep")
    assert reasons(tmp_path / "steep") == ["TILT_TOO_LARGE"]

    def jump(ds, k):
        if k == 4:
            shifted = np.array(ds.ImagePositionPatient, float) + 0.5 * series.row
            ds.ImagePositionPatient = [f"{value:.9g}" for value in shifted]

    series = Series(random_voxels())
    series.write(tmp_path / "jump", jump)
    assert reasons(tmp_path / "jump") == ["SLICE_SHIFT"]

    crooked = Series(random_voxels())
    crooked.column = crooked.column + 0.2 * crooked.row
    crooked.write(tmp_path / "crooked")
    assert reasons(tmp_path / "crooked") == ["BAD_GEOMETRY"]


@pytest.mark.parametrize("dropped", [1, 4, 7])
def test_missing_slice_leaves_longest_run(tmp_path, dropped):
    """No slice is ever interpolated."""
    series = Series(random_voxels((14, 11, 12)))
    paths = series.write(tmp_path / "s")
    paths[dropped].unlink()
    ((row, volume),) = accepted(tmp_path)
    run = slice(0, dropped) if dropped > 12 - dropped - 1 else slice(dropped + 1, 12)
    assert_is(volume, series, run)
    assert row.flags == ("F_TRIMMED",)
    assert reasons(tmp_path) == ["MISSING_SLICES"]


def test_missing_slice_without_long_run_rejects_series(tmp_path):
    paths = Series(random_voxels((14, 11, 9))).write(tmp_path / "s")
    paths[4].unlink()
    assert reasons(tmp_path, min_slices=6) == ["MISSING_SLICES"]


def test_missing_first_or_last_slice_is_not_detectable(tmp_path):
    """Nothing in the remaining files shows that the first or last slice is missing."""
    series = Series(random_voxels())
    paths = series.write(tmp_path / "s")
    paths[0].unlink()
    ((row, volume),) = accepted(tmp_path)
    assert_is(volume, series, slice(1, 9))
    assert row.flags == ()


def test_changing_spacing_is_split_into_even_runs(tmp_path):
    """A head CT: thin slices through the base of the skull, thick ones above."""
    series = Series(random_voxels((14, 11, 12)))
    normal = np.cross(series.row, series.column)

    def place(ds, k):
        depth = 4.2 * k if k < 6 else 4.2 * 5 + 7.4 * (k - 5)
        ds.ImagePositionPatient = [f"{value:.9g}" for value in series.origin_mm + depth * normal]

    series.write(tmp_path / "s", place)
    scans = accepted(tmp_path)
    assert sorted(round(row.spacing_mm[2], 3) for row, _ in scans) == [4.2, 7.4]
    assert sorted(row.shape[2] for row, _ in scans) == [6, 6]
    assert all("F_SPLIT_SPACING" in row.flags for row, _ in scans)


def test_irregular_spacing_is_rejected(tmp_path):
    series = Series(random_voxels((14, 11, 9)))
    normal = np.cross(series.row, series.column)
    depths = np.cumsum([0, 3.0, 4.1, 2.2, 5.3, 3.4, 4.8, 2.6, 3.7])

    def place(ds, k):
        ds.ImagePositionPatient = [f"{value:.9g}" for value in series.origin_mm + depths[k] * normal]

    series.write(tmp_path / "s", place)
    assert reasons(tmp_path) == ["UNEVEN_SPACING"]


def test_rounded_positions_give_mean_spacing(tmp_path):
    series = Series(random_voxels((14, 11, 9)), row=np.array([1.0, 0, 0]), column=np.array([0, 1.0, 0]))
    series.step_mm = np.array([0, 0, 6.95])

    def rounded(ds, k):
        ds.ImagePositionPatient = [f"{value:.1f}" for value in series.origin_mm + k * series.step_mm]

    series.write(tmp_path / "s", rounded)
    ((row, _),) = accepted(tmp_path)
    assert row.flags == ("F_JITTER",)
    assert row.spacing_mm[2] == pytest.approx(6.95, abs=0.02)


def test_series_is_split_by_orientation_echo_and_type(tmp_path):
    axial = Series(random_voxels(), modality="MR", slope=1.0, intercept=0.0)
    sagittal = Series(
        random_voxels(seed=1), row=np.array([0, 1.0, 0]), column=np.array([0, 0, -1.0]), modality="MR", intercept=0.0,
        series_uid=axial.series_uid, study_uid=axial.study_uid,
    )  # fmt: skip
    axial.write(tmp_path / "axial")
    sagittal.write(tmp_path / "sagittal")
    for echo in (1, 2):
        late = Series(
            random_voxels(seed=echo + 1),
            modality="MR",
            intercept=0.0,
            series_uid=axial.series_uid,
            study_uid=axial.study_uid,
        )

        def edit(ds, k, echo=echo):
            ds.EchoTime, ds.EchoNumbers = 5.0 * echo, echo
            ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]

        late.write(tmp_path / f"echo{echo}", edit)
    scans = accepted(tmp_path)
    assert len(scans) == 4
    for series in (axial, sagittal):
        assert any(
            np.array_equal(volume.voxels, np.asarray(series.physical, volume.voxels.dtype))
            or np.array_equal(volume.voxels[:, :, ::-1], series.physical)
            for _, volume in scans
        )
    flags = {flag for row, _ in scans for flag in row.flags}
    assert {"F_SPLIT_ORIENT", "F_SPLIT_TYPE", "F_SPLIT_ECHO"} <= flags


@pytest.mark.parametrize("by", ["AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime", "InstanceNumber"])
def test_time_series_is_split_by_distinguishing_element(tmp_path, by):
    volumes = [Series(random_voxels(seed=t), modality="MR", intercept=0.0) for t in range(3)]
    for t, series in enumerate(volumes):
        series.series_uid, series.study_uid = volumes[0].series_uid, volumes[0].study_uid

        def edit(ds, k, t=t):
            ds.InstanceNumber = (k * 3 + t + 1) if by == "InstanceNumber" else 1000 - 7 * k + 50 * t
            if by != "InstanceNumber":
                setattr(ds, by, t + 1)

        series.write(tmp_path / f"t{t}", edit)
    scans = accepted(tmp_path)
    assert [row.n_volumes for row, _ in scans] == [3, 3, 3]
    assert all("F_4D" in row.flags for row, _ in scans)
    for series, (_, volume) in zip(volumes, scans, strict=True):
        assert_is(volume, series)


def test_aborted_time_series_keeps_complete_volumes(tmp_path):
    first = Series(random_voxels(), modality="MR", intercept=0.0)
    second = Series(
        random_voxels(seed=1), modality="MR", intercept=0.0, series_uid=first.series_uid, study_uid=first.study_uid
    )
    first.write(tmp_path / "a")
    for path in second.write(tmp_path / "b", lambda ds, k: setattr(ds, "AcquisitionNumber", 2))[5:]:
        path.unlink()
    ((row, volume),) = accepted(tmp_path)
    assert_is(volume, first)
    assert "F_RAGGED_4D" in row.flags
    assert reasons(tmp_path) == ["INCOMPLETE_4D"]


def test_volumes_per_series_are_chosen_evenly(tmp_path):
    first = Series(random_voxels((6, 5, 4)), modality="MR", intercept=0.0)
    for t in range(7):
        series = Series(
            random_voxels((6, 5, 4), seed=t),
            modality="MR",
            intercept=0.0,
            series_uid=first.series_uid,
            study_uid=first.study_uid,
        )
        series.write(tmp_path / f"t{t}", lambda ds, k, t=t: setattr(ds, "AcquisitionNumber", t + 1))
    kept = accepted(tmp_path, volumes_per_series=3)
    for t, (_, volume) in zip((0, 3, 6), kept, strict=True):
        np.testing.assert_array_equal(volume.voxels, random_voxels((6, 5, 4), seed=t))
    assert reasons(tmp_path, volumes_per_series=3) == ["VOLUME_LIMIT"]


def test_slice_under_two_uids_needs_equal_pixels(tmp_path):
    """Equal pixels: the slice is used once. Different pixels: it is not used at all."""
    series = Series(random_voxels())
    series.write(tmp_path / "s")
    ds = series.dataset(4)
    save(ds, tmp_path / "s" / "again")
    ((row, volume),) = accepted(tmp_path)
    assert_is(volume, series)
    assert row.flags == ("F_DUP_POSITION",)
    ds.PixelData = bytes(len(ds.PixelData))
    save(ds, tmp_path / "s" / "again")
    ((_, volume),) = accepted(tmp_path)
    assert_is(volume, series, slice(0, 4))


def test_instance_in_two_folders_is_used_once(tmp_path):
    series = Series(random_voxels())
    paths = series.write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for path in paths:
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    ((row, volume),) = accepted(tmp_path)
    assert_is(volume, series)
    assert row.flags == ("F_DUP_INSTANCE",)


def test_instance_uid_of_two_slices_rejects_both(tmp_path):
    series = Series(random_voxels((14, 11, 12)))
    uid = "1.2.3.99"
    series.write(tmp_path / "s", lambda ds, k: setattr(ds, "SOPInstanceUID", uid) if k in (0, 11) else None)
    ((_, volume),) = accepted(tmp_path)
    assert_is(volume, series, slice(1, 11))
    assert reasons(tmp_path) == ["SOP_UID_COLLISION"]


def test_slope_and_intercept_apply_per_slice(tmp_path):
    series = Series(random_voxels(), modality="PT")

    def edit(ds, k):
        ds.RescaleSlope, ds.RescaleIntercept = 0.25 * (k + 1), 0.0

    series.write(tmp_path / "s", edit)
    ((row, volume),) = accepted(tmp_path)
    np.testing.assert_allclose(volume.voxels, series.voxels * (0.25 * np.arange(1, 10)), rtol=1e-6)
    assert row.flags == ("F_PER_SLICE_SCALE",)
    assert row.modality == "PT"


def test_padding_becomes_air_only_in_ct(tmp_path):
    for modality, outside in (("CT", -1024.0), ("MR", 63.0)):
        voxels = random_voxels()
        voxels[:3] = 63
        series = Series(voxels, modality=modality, intercept=-1000.0 if modality == "CT" else 0.0)

        def edit(ds, k):
            ds.add_new("PixelPaddingValue", "US", 63)

        series.write(tmp_path / modality, edit)
        ((_, volume),) = accepted(tmp_path / modality)
        expected = np.where(series.voxels == 63, outside, series.physical)
        np.testing.assert_array_equal(volume.voxels, expected)


def test_modality_lut_is_applied(tmp_path):
    import pydicom

    table = (np.arange(4096)[::-1] // 2).astype("<u2")
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4096, 0, 16], "US"
    item.add_new("LUTData", "OW", table.tobytes())
    series = Series(random_voxels())

    def edit(ds, k):
        del ds.RescaleSlope, ds.RescaleIntercept
        ds.ModalityLUTSequence = [item]

    series.write(tmp_path / "s", edit)
    ((row, volume),) = accepted(tmp_path)
    np.testing.assert_array_equal(volume.voxels, table[series.voxels])
    assert "F_MODALITY_LUT" in row.flags


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "LOCALIZER"]}, "LOCALIZER"),
        ({"ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"]}, "DERIVED"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "DERIVED"),
        ({"BurnedInAnnotation": "YES"}, "BURNED_IN_RISK"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "COLOR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "SECONDARY_CAPTURE"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}, "UNSUPPORTED_MODALITY"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "NOT_IMAGE_SOP"),
        ({"ImagePositionPatient": None}, "NO_GEOMETRY"),
        ({"ImageOrientationPatient": None}, "NO_GEOMETRY"),
        ({"PixelSpacing": None}, "NO_GEOMETRY"),
        ({"PixelSpacing": [0.0, 1.0]}, "BAD_GEOMETRY"),
        ({"PixelSpacing": [30.0, 30.0]}, "OUT_OF_RANGE"),
        ({"RescaleSlope": 0}, "BAD_NUMBER"),
        ({"BitsStored": 17}, "BAD_HEADER"),
        ({"Rows": 999}, "TRUNCATED"),
        ({"NumberOfFrames": 2, "Rows": 5}, "MULTIFRAME_NO_GEOMETRY"),
    ],
)
def test_non_scans_have_their_reason(tmp_path, change, reason):
    def edit(ds, k):
        for name, value in change.items():
            setattr(ds, name, value)

    Series(random_voxels()).write(tmp_path / "s", edit)
    assert reasons(tmp_path) == [reason]


def test_derived_images_are_used_with_include_derived(tmp_path):
    Series(random_voxels()).write(tmp_path / "s", lambda ds, k: setattr(ds, "ImageType", ["DERIVED", "PRIMARY", "MIP"]))
    assert len(accepted(tmp_path, include_derived=True)) == 1


def test_ct_without_negative_values_is_flagged(tmp_path):
    series = Series(random_voxels(), intercept=0.0)
    series.write(tmp_path / "s")
    ((_, plan),) = planned(tmp_path)
    assert "F_CT_NOT_HU" in load_planned_scan(plan, limits=LIMITS).flags


def test_blank_patient_id_is_flagged_and_split_by_study(tmp_path):
    for name in ("a", "b"):
        Series(random_voxels(seed=ord(name)), patient="ANONYMOUS").write(tmp_path / name)
    rows = [row for row, _ in planned(tmp_path)]
    assert all("F_PATIENT_ID_SUSPECT" in row.flags for row in rows)
    assert len({row.patient_id for row in rows}) == 2


def test_load_scan_needs_exactly_one_series(tmp_path):
    row, column = oblique()
    series = Series(random_voxels((20, 15, 9)), row=row, column=column, row_spacing_mm=3.0, column_spacing_mm=3.0)
    series.write(tmp_path / "s" / "one")
    assert_is(load_scan(tmp_path / "s"), series)
    Series(random_voxels((20, 15, 9), seed=1), row_spacing_mm=3.0, column_spacing_mm=3.0).write(tmp_path / "s" / "two")
    with pytest.raises(DataError, match="holds 2 scans"):
        load_scan(tmp_path / "s")


@pytest.mark.parametrize("interleaved", [False, True])
def test_overlapping_or_interleaved_acquisitions_are_two_scans(tmp_path, interleaved):
    first = Series(random_voxels((14, 11, 9)))
    second = Series(random_voxels((14, 11, 9), seed=1), series_uid=first.series_uid, study_uid=first.study_uid)
    further_mm = 1.7 * np.cross(first.row, first.column) if interleaved else 6 * first.step_mm
    second.origin_mm = first.origin_mm + further_mm
    first.write(tmp_path / "a")
    second.write(tmp_path / "b", lambda ds, k: setattr(ds, "AcquisitionNumber", 2))
    scans = accepted(tmp_path)
    assert len(scans) == 2
    for series, (row, volume) in zip((first, second), scans, strict=True):
        assert "F_SPLIT_ACQ" in row.flags
        assert row.n_volumes == 1
        matches = [other for _, other in scans if np.array_equal(other.voxels, series.physical)]
        assert_is(matches[0], series)
        assert volume.shape == (14, 11, 9)
