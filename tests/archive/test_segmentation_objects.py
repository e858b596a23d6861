"""DICOM segmentations become labels: known masks, by highdicom or bit by bit, land on the voxels they were made on."""

import numpy as np
import pydicom
import pytest
from loaded_labels import accepted, loaded, only, rejected
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless, generate_uid
from written_dicom import Series, random_voxels
from written_labels import highdicom_segmentation, outline, put, segmentation, structure_set, written

from medssl.archive.index.database import read_index
from medssl.cohort.cohort import Cohort
from medssl.ingestion.explanation import explain
from medssl_phantoms import make_archive

SHAPE = (14, 11, 9)


def truth() -> np.ndarray:
    """(X, Y, Z) label values: two boxes without symmetry."""
    label = np.zeros(SHAPE, np.uint8)
    label[3:7, 2:6, 1:5], label[8:12, 5:10, 3:8] = 1, 2
    return label


def masks() -> np.ndarray:
    return np.stack([truth() == 1, truth() == 2], axis=-1)


@pytest.fixture
def ct(tmp_path):
    """(series, its datasets): an oblique CT in tmp_path/a/ct."""
    series = Series(random_voxels(SHAPE))
    return series, written(series, tmp_path / "a" / "ct")


def position(series: Series, voxel) -> np.ndarray:
    """LPS mm of a voxel, fractions allowed."""
    return (series.affine_ras_mm @ (*voxel, 1.0))[:3] * (-1, -1, 1)


def axial(series: Series, images, frames, names=("Liver", "Spleen"), *, shift=(0.0, 0.0, 0.0), **options):
    """A segmentation on the images' own planes. frames: (segment, k, mask (X, Y)); shift: in voxels."""
    given = {
        "orientation": (*series.row, *series.column),
        "spacing_mm": (series.row_spacing_mm, series.column_spacing_mm),
    }
    drawn = [(segment, mask.T, position(series, np.array([0, 0, k]) + shift)) for segment, k, mask in frames]
    return segmentation(images, drawn, names, **given | options)


def all_frames(label=None):
    label = truth() if label is None else label
    return [(value, k, label[:, :, k] == value) for value in (1, 2) for k in range(label.shape[2])]


def test_binary_segmentation_of_highdicom_matches_voxels(tmp_path, run_ingest, ct):
    put(highdicom_segmentation(ct[1], masks(), ["Liver", "Spleen"]), tmp_path / "a" / "seg")
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.n_labelled, report.n_rejected) == (1, 1, 0)
    assert Cohort.open(tmp_path / "cohort").label_names == {0: "background", 1: "liver", 2: "spleen"}
    found = only(tmp_path / "cohort")
    np.testing.assert_array_equal(found.label.voxels, truth())
    np.testing.assert_allclose(found.label.affine_ras_mm, ct[0].affine_ras_mm, atol=1e-4)
    (row,) = accepted(tmp_path / "cohort")
    assert (row.labels, row.flags) == ((0, 1, 2), ())


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_fractional_segmentation_counts_from_one_half(tmp_path, run_ingest, ct, syntax):
    shares = np.zeros((*SHAPE, 1))
    shares[2:5, 3:6, 2:4, 0], shares[5:8, 3:6, 2:4, 0], shares[9:11, 3:6, 2:4, 0] = 1.0, 0.55, 0.45
    options = {"segmentation_type": "FRACTIONAL"} | ({"transfer_syntax_uid": syntax} if syntax else {})
    put(highdicom_segmentation(ct[1], shares, ["Liver"], **options), tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, shares[..., 0] > 0.5)
    assert next(accepted(tmp_path / "cohort")).flags == ("F_LABEL_FRACTIONAL",)


def test_label_map_segmentation_is_read_by_value(tmp_path, run_ingest, ct):
    options = {"segmentation_type": "LABELMAP", "transfer_syntax_uid": RLELossless}
    put(highdicom_segmentation(ct[1], truth(), ["Liver", "Spleen"], **options), tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, truth())


def test_frames_in_any_order_without_empty_ones(tmp_path, run_ingest, ct):
    frames = [frame for frame in all_frames() if frame[2].any()]
    order = np.random.default_rng(3).permutation(len(frames))
    put(axial(*ct, [frames[number] for number in order]), tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, truth())


def test_frames_of_other_planes_are_placed_by_geometry(tmp_path, run_ingest, ct):
    series, images = ct
    label, step = truth(), series.step_mm / np.linalg.norm(series.step_mm)
    # Planes of constant i; rows run against the slices, columns against j.
    frames = [
        (value, (label[i] == value)[::-1, ::-1].T, position(series, (i, SHAPE[1] - 1, SHAPE[2] - 1)))
        for value in (1, 2)
        for i in range(SHAPE[0])
    ]
    # A pixel's column index runs along -j here, its row index along -k.
    ds = segmentation(
        images, frames, ("Liver", "Spleen"),
        orientation=(*-series.column, *-step), spacing_mm=(4.0, series.row_spacing_mm),
    )  # fmt: skip
    put(ds, tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, label)


def test_frames_beyond_the_scan_are_cropped(tmp_path, run_ingest, ct):
    """Frames that cover only a part of the scan are enough."""
    series, images = ct
    box = truth()[2:13, 1:11]  # smaller along X and Y
    frames = [(1, (box[:, :, k] == 1).T, position(series, (2, 1, k))) for k in range(1, 5)]
    put(segmentation(images, frames, ["Liver"], orientation=(*series.row, *series.column), spacing_mm=(2.5, 1.5)),
        tmp_path / "a" / "seg")  # fmt: skip
    wide = np.pad(truth() == 2, ((3, 2), (1, 4), (2, 2)))  # larger on every side
    wide[0] = True
    frames = [(1, wide[:, :, k].T, position(series, (-3, -1, k - 2))) for k in range(wide.shape[2])]
    put(segmentation(images, frames, ["Spleen"], orientation=(*series.row, *series.column), spacing_mm=(2.5, 1.5)),
        tmp_path / "a" / "seg2")  # fmt: skip
    run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, truth())
    assert next(accepted(tmp_path / "cohort")).flags == ("F_LABELS_MERGED",)


@pytest.mark.parametrize(
    ("shift", "spacing_mm", "turn_deg"),
    [
        ((0.5, 0, 0), (2.5, 1.5), 0),
        ((0, 0, 0.5), (2.5, 1.5), 0),
        ((0, 0, 0), (2.5, 1.45), 0),
        ((0, 0, 0), (2.5, 1.5), 2),
    ],
)
def test_segmentation_on_other_grid_is_left_out(tmp_path, run_ingest, ct, shift, spacing_mm, turn_deg):
    series, images = ct
    turn = np.deg2rad(turn_deg)
    row = np.cos(turn) * series.row + np.sin(turn) * series.column
    column = np.cos(turn) * series.column - np.sin(turn) * series.row
    ds = axial(series, images, all_frames(), shift=shift, orientation=(*row, *column), spacing_mm=spacing_mm)
    put(ds, tmp_path / "a" / "seg")
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.n_labelled, report.reasons) == (1, 0, {"LABEL_GRID": 1})
    assert next(accepted(tmp_path / "cohort")).flags == ("F_LABEL_LEFT_OUT",)


def test_segmentation_positions_may_be_rounded(tmp_path, run_ingest, ct):
    put(axial(*ct, all_frames(), shift=(0.02, -0.02, 0.05)), tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, truth())


def test_segmentation_with_thicker_slices_is_left_out(tmp_path, run_ingest, ct):
    frames = [frame for frame in all_frames() if frame[1] % 2 == 0]
    put(axial(*ct, frames, spacing_mm=(2.5, 1.5, 8.0)), tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    assert rejected(tmp_path / "cohort") == ["LABEL_GRID"]


def test_overlapping_segments_later_on_top(tmp_path, run_ingest, ct):
    both = np.zeros((*SHAPE, 2), bool)
    both[2:8, 2:8, 2:6, 1], both[5:11, 4:9, 3:7, 0] = True, True
    frames = [(s, k, both[:, :, k, s - 1]) for k in range(SHAPE[2]) for s in (2, 1)]
    put(axial(*ct, frames), tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    expected = np.where(both[..., 1], 2, both[..., 0].astype(int))
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, expected)
    assert next(accepted(tmp_path / "cohort")).flags == ("F_LABEL_OVERLAP",)


def test_segmentation_labels_the_referenced_echo(tmp_path, run_ingest):
    uid, study = generate_uid(), generate_uid()
    echoes = []
    for number in range(2):
        series = Series(
            random_voxels(SHAPE, seed=number), modality="MR", series_uid=uid, study_uid=study, intercept=0.0
        )
        echoes.append(
            (
                series,
                written(series, tmp_path / "a" / str(number), lambda ds, _, e=number: setattr(ds, "EchoTime", 10 + e)),
            )
        )
    put(axial(*echoes[1], all_frames()), tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    labels = {
        bool(np.array_equal(scan.volume.voxels, echoes[1][0].physical)): scan.label
        for _, scan in loaded(tmp_path / "cohort")
    }
    assert labels[False] is None
    np.testing.assert_array_equal(labels[True].voxels, truth())


def test_segmentation_finds_series_by_source_frames(tmp_path, run_ingest, ct):
    ds = highdicom_segmentation(ct[1], masks(), ["Liver", "Spleen"])
    del ds.ReferencedSeriesSequence
    put(ds, tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, truth())


def without_reference(ds):
    del ds.ReferencedSeriesSequence


def elsewhere(ds):
    ds.FrameOfReferenceUID = "1.2.3.5"


def other_series(ds):
    ds.ReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()


def other_slices(ds):
    for item in ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence:
        item.ReferencedSOPInstanceUID = generate_uid()


def endless(ds):
    ds.NumberOfFrames = 2_000_000_000


def fewer_descriptions(ds):
    ds.PerFrameFunctionalGroupsSequence = Items(list(ds.PerFrameFunctionalGroupsSequence)[:-1])


def huge_frames(ds):
    ds.Rows = ds.Columns = 65535


def no_segment(ds):
    del ds.PerFrameFunctionalGroupsSequence[3].SegmentIdentificationSequence


def no_position(ds):
    del ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence


def no_number(ds):
    plane = ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    plane.add_new(0x00200032, "UT", "nan\\1\\2")


def few_pixels(ds):
    ds.PixelData = ds.PixelData[:20]


def four_bits(ds):
    ds.BitsAllocated = 4


def no_type(ds):
    ds.SegmentationType = "SURFACE"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (without_reference, "LABEL_WITHOUT_IMAGE"), (other_series, "LABEL_WITHOUT_IMAGE"),
        (other_slices, "LABEL_WITHOUT_IMAGE"), (elsewhere, "LABEL_GRID"), (endless, "LABEL_UNREADABLE"),
        (fewer_descriptions, "LABEL_UNREADABLE"), (huge_frames, "LABEL_UNREADABLE"), (no_segment, "LABEL_UNREADABLE"),
        (no_position, "LABEL_UNREADABLE"), (no_number, "LABEL_UNREADABLE"), (few_pixels, "LABEL_UNREADABLE"),
        (four_bits, "LABEL_UNREADABLE"), (no_type, "LABEL_UNREADABLE"),
    ],
)  # fmt: skip
def test_broken_segmentation_has_reason_and_keeps_scan(tmp_path, run_ingest, ct, edit, reason):
    ds = axial(*ct, all_frames())
    edit(ds)
    put(ds, tmp_path / "a" / "seg")
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.n_labelled, report.reasons) == (1, 0, {reason: 1})


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_truncated_segmentation_keeps_scan(tmp_path, run_ingest, ct, share):
    path = put(axial(*ct, all_frames()), tmp_path / "a" / "seg")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.n_labelled, report.n_rejected) == (1, 0, 1)
    assert set(report.reasons) <= {"TRUNCATED", "LABEL_UNREADABLE"}


def test_newest_object_with_label_wins(tmp_path, run_ingest, ct):
    series, images = ct
    moved = np.roll(truth(), 1, axis=0)
    old = axial(series, images, all_frames(moved), created="20190101")
    newer = axial(series, images, [f for f in all_frames() if f[0] == 2], names=("x", "Spleen"), created="20210101")
    corners = [(2.5, 1.5), (6.5, 1.5), (6.5, 5.5), (2.5, 5.5)]
    contours = [outline(series, corners, k) for k in range(1, 5)]
    newest = structure_set(images, [("Liver", contours)], created="20220101")
    for number, ds in enumerate((newest, old, newer)):
        put(ds, tmp_path / "a" / f"{number}")
    report = run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, truth())
    assert report.reasons == {"LABEL_SUPERSEDED": 1}
    assert set(next(accepted(tmp_path / "cohort")).flags) == {"F_LABELS_MERGED", "F_LABEL_PART"}


def test_changed_label_object_is_read_again(tmp_path, run_ingest, ct):
    """Also: it does not matter whether the label or its image is ingested first."""
    series, images = ct
    run_ingest(tmp_path / "a")
    path = put(axial(series, images, all_frames()), tmp_path / "b" / "seg")
    assert run_ingest(tmp_path / "a", tmp_path / "b").n_loaded == 1
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, truth())
    assert run_ingest(tmp_path / "a", tmp_path / "b").n_loaded == 0
    put(axial(series, images, all_frames(truth()[::-1])), path)
    assert run_ingest(tmp_path / "a", tmp_path / "b").n_loaded == 1
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, truth()[::-1])


def test_label_before_its_image_is_used_later(tmp_path, run_ingest, ct):
    put(axial(*ct, all_frames()), tmp_path / "b" / "seg")
    assert run_ingest(tmp_path / "b").reasons == {"LABEL_WITHOUT_IMAGE": 1}
    report = run_ingest(tmp_path / "a", tmp_path / "b")
    assert (report.n_labelled, report.reasons) == (1, {})


def test_segment_codes_replace_unknown_names(tmp_path, run_ingest, ct):
    kinds = [codes.SCT.Liver, codes.SCT.Spleen]
    put(highdicom_segmentation(ct[1], masks(), ["Segment_1", "J. Doe"], kinds=kinds), tmp_path / "a" / "seg")
    run_ingest(tmp_path / "a")
    assert Cohort.open(tmp_path / "cohort").label_names == {0: "background", 1: "liver", 2: "spleen"}
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, truth())


def test_written_bits_read_the_same_in_pydicom(ct, tmp_path):
    path = put(axial(*ct, all_frames()), tmp_path / "seg")
    frames = pydicom.dcmread(path).pixel_array.reshape(2, SHAPE[2], SHAPE[1], SHAPE[0])
    np.testing.assert_array_equal((frames[0] + 2 * frames[1]).transpose(2, 1, 0), truth())


def test_explain_shows_used_and_unused_labels(tmp_path, run_ingest, ct):
    used = put(highdicom_segmentation(ct[1], masks(), ["Liver", "Spleen"]), tmp_path / "a" / "seg")
    strange = highdicom_segmentation(ct[1], masks(), ["Rtx 12b", "Plan B"])
    unused = put(strange, tmp_path / "a" / "other")
    run_ingest(tmp_path / "a")
    (scan_id,) = [row.scan_id for row in Cohort.open(tmp_path / "cohort").accepted()]
    with read_index(tmp_path / "cohort" / "private") as index:
        (label,) = explain(index, str(used), show_paths=False)
        (left_out,) = explain(index, str(unused), show_paths=False)
    assert (label.what, label.name, label.verdict) == ("label", scan_id, "accepted")
    assert label.detail == f"it labels the scan {scan_id}: structure 1 as label 1, structure 2 as label 2"
    assert left_out.verdict == "LABEL_NAMES"


def test_explain_shows_label_of_nifti_scan(tmp_path, run_ingest):
    made = make_archive(tmp_path / "a", dicom_patients=0, nifti_cases=1, shape=(24, 30, 18))
    run_ingest(made.images, label_dir=made.labels)
    (name,) = [path.name for path in made.labels.iterdir()]
    (row,) = Cohort.open(tmp_path / "cohort").accepted()
    with read_index(tmp_path / "cohort" / "private") as index:
        found = explain(index, str(made.labels / name), show_paths=False)
    assert [one.detail for one in found] == [f"it labels the scan {row.scan_id}"]
