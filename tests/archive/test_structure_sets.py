"""Contours of DICOM structure sets become voxels: against closed forms, matplotlib, and a naive loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loaded_labels import accepted, only, rejected
from written_dicom import Series, random_voxels
from written_labels import outline, put, structure_set, written

from medssl.archive.labels.structure_set import CrossingBudget, inside
from medssl.archive.rejection import Rejected
from medssl.cohort.cohort import Cohort

SHAPE = (14, 11, 9)
SQUARE = [(2.5, 1.5), (6.5, 1.5), (6.5, 5.5), (2.5, 5.5)]


def squared(*slices: int) -> np.ndarray:
    """(X, Y, Z) bool: the voxels within SQUARE."""
    mask = np.zeros(SHAPE, bool)
    mask[3:7, 2:6, list(slices)] = True
    return mask


@pytest.fixture
def ct(tmp_path):
    series = Series(random_voxels(SHAPE))
    return series, written(series, tmp_path / "a" / "ct")


def square(series: Series, *slices: float) -> list[np.ndarray]:
    return [outline(series, SQUARE, k) for k in slices]


def test_contours_on_oblique_scan_fill_voxels(tmp_path, run_ingest, ct):
    rois = [("Liver", square(ct[0], 1, 2, 3)), ("Spleen", [outline(ct[0], [(8, 3.2), (12.4, 3.2), (10, 9.9)], 6)])]
    put(structure_set(ct[1], rois), tmp_path / "a" / "rt")
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.n_labelled, report.n_rejected) == (1, 1, 0)
    assert Cohort.open(tmp_path / "cohort").label_names == {0: "background", 1: "liver", 2: "spleen"}
    label = only(tmp_path / "cohort").label.voxels
    np.testing.assert_array_equal(label == 1, squared(1, 2, 3))
    # The triangle by hand: at row y its edges lie at 8 + (y - 3.2) * 2 / 6.7 and 12.4 - (y - 3.2) * 2.4 / 6.7.
    for y in range(11):
        for x in range(14):
            within = 3.2 <= y < 9.9 and 8 + (y - 3.2) * 2 / 6.7 <= x < 12.4 - (y - 3.2) * 2.4 / 6.7
            assert (label[x, y, 6] == 2) == within, (x, y)


def test_contours_on_tilted_gantry_are_sheared(tmp_path, run_ingest):
    plain = Series(random_voxels(SHAPE))
    tilted = Series(random_voxels(SHAPE), step_mm=plain.step_mm + 1.2 * plain.column)
    images = written(tilted, tmp_path / "a" / "ct")
    put(structure_set(images, [("Liver", square(tilted, 0, 1, 7, 8))]), tmp_path / "a" / "rt")
    run_ingest(tmp_path / "a")
    assert "F_TILT" in next(accepted(tmp_path / "cohort")).flags
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, squared(0, 1, 7, 8))


HOLE = [(3.5, 2.5), (5.5, 2.5), (5.5, 4.5), (3.5, 4.5)]


@pytest.mark.parametrize("turned", [False, True])
def test_contour_within_contour_is_a_hole(tmp_path, run_ingest, ct, turned):
    hole = outline(ct[0], HOLE[::-1] if turned else HOLE, 2)
    put(structure_set(ct[1], [("Liver", [*square(ct[0], 2), hole])], kind="CLOSEDPLANAR_XOR"), tmp_path / "a" / "rt")
    run_ingest(tmp_path / "a")
    expected = squared(2)
    expected[4:6, 3:5, 2] = False
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, expected)


def test_keyhole_contour_leaves_hole(tmp_path, run_ingest, ct):
    keyhole = [*SQUARE, SQUARE[0], *[HOLE[i] for i in (0, 3, 2, 1)], HOLE[0]]
    put(structure_set(ct[1], [("Liver", [outline(ct[0], keyhole, 2)])]), tmp_path / "a" / "rt")
    run_ingest(tmp_path / "a")
    expected = squared(2)
    expected[4:6, 3:5, 2] = False
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, expected)


def test_contour_listed_twice_counts_once(tmp_path, run_ingest, ct):
    put(structure_set(ct[1], [("Liver", square(ct[0], 2, 3, 2))]), tmp_path / "a" / "rt")
    run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, squared(2, 3))


def test_overlapping_structures_later_on_top(tmp_path, run_ingest, ct):
    rois = [("Spleen", square(ct[0], 2)), ("Liver", [outline(ct[0], HOLE, 2)])]
    put(structure_set(ct[1], rois), tmp_path / "a" / "rt")
    run_ingest(tmp_path / "a")
    expected = 2 * squared(2).astype(int)
    expected[4:6, 3:5, 2] = 1
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, expected)
    assert next(accepted(tmp_path / "cohort")).flags == ("F_LABEL_OVERLAP",)


def test_contours_of_points_and_lines_are_skipped(tmp_path, run_ingest, ct):
    series, images = ct
    ds = structure_set(images, [("Liver", [*square(series, 2, 3), outline(series, [(9, 9)], 5)]), ("Spleen", [])])
    marker = structure_set(images, [("x", [outline(series, [(1, 1)], 0.4)])], kind="POINT").ROIContourSequence[0]
    ds.ROIContourSequence[1].ContourSequence = marker.ContourSequence
    put(ds, tmp_path / "a" / "rt")
    report = run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, squared(2, 3))
    assert report.reasons == {"LABEL_CONTOURS": 1}
    assert next(accepted(tmp_path / "cohort")).flags == ("F_LABEL_PART",)


def test_contours_beyond_the_scan_are_ignored(tmp_path, run_ingest, ct):
    put(structure_set(ct[1], [("Liver", square(ct[0], -2, -1, 0, 1))]), tmp_path / "a" / "rt")
    run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, squared(0, 1))


def across(series: Series) -> list[np.ndarray]:
    points = outline(series, SQUARE, 2)
    points[2:] += series.step_mm
    return [points]


def not_a_number(series: Series) -> list[np.ndarray]:
    points = outline(series, SQUARE, 2)
    points[1, 1] = np.nan
    return [points]


def far_away(series: Series) -> list[np.ndarray]:
    return [outline(series, SQUARE, 2) * 1e300]


@pytest.mark.parametrize(
    ("contours", "reason"),
    [
        (lambda series: square(series, 2.5), "LABEL_OFF_SLICE"),
        (lambda series: square(series, 2, 3.4), "LABEL_OFF_SLICE"),
        (across, "LABEL_OFF_SLICE"), (lambda series: square(series, 0, 2, 4, 8), "LABEL_OFF_SLICE"),
        (lambda series: square(series, 20), "LABEL_OFF_SLICE"), (lambda series: [], "LABEL_CONTOURS"),
        (lambda series: [outline(series, SQUARE[:1], 2)], "LABEL_CONTOURS"),
        (lambda series: [outline(series, SQUARE[:2], 2)], "LABEL_CONTOURS"),
        (not_a_number, "LABEL_CONTOURS"), (far_away, "LABEL_CONTOURS"),
    ],
)  # fmt: skip
def test_undrawable_contours_have_reason_and_keep_scan(tmp_path, run_ingest, ct, contours, reason):
    put(structure_set(ct[1], [("Liver", contours(ct[0]))]), tmp_path / "a" / "rt")
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.n_labelled, report.reasons) == (1, 0, {reason: 1})
    assert next(accepted(tmp_path / "cohort")).flags == ("F_LABEL_LEFT_OUT",)


@pytest.mark.parametrize(
    "text", ["1\\2", "1\\2\\3\\4\\5\\6\\7\\8\\x", "inf\\0\\0\\1\\0\\0\\1\\1\\0", "\\\\\\\\\\\\\\\\"]
)
def test_contour_coordinates_must_be_finite_numbers(tmp_path, run_ingest, ct, text):
    ds = structure_set(ct[1], [("Liver", square(ct[0], 2))])
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    del contour.NumberOfContourPoints
    contour.add_new(0x30060050, "UT", text)
    put(ds, tmp_path / "a" / "rt")
    run_ingest(tmp_path / "a")
    assert rejected(tmp_path / "cohort") == ["LABEL_CONTOURS"]


def test_broken_structure_keeps_the_others(tmp_path, run_ingest, ct):
    rois = [("Liver", square(ct[0], 2, 3)), ("Spleen", square(ct[0], 6.5))]
    put(structure_set(ct[1], rois), tmp_path / "a" / "rt")
    report = run_ingest(tmp_path / "a")
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, squared(2, 3))
    assert (report.n_labelled, report.reasons) == (1, {"LABEL_OFF_SLICE": 1})


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_structure_set_keeps_scan(tmp_path, run_ingest, ct, share):
    path = put(structure_set(ct[1], [("Liver", square(ct[0], *range(9)))]), tmp_path / "a" / "rt")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    report = run_ingest(tmp_path / "a")
    assert (report.n_scans, report.n_labelled, report.n_rejected) == (1, 0, 1)
    assert set(report.reasons) <= {"TRUNCATED", "LABEL_UNREADABLE", "LABEL_WITHOUT_IMAGE", "LABEL_NAMES"}


def test_structure_set_larger_than_header_limit_is_read(tmp_path, run_ingest, ct):
    turn = np.linspace(0, 2 * np.pi, 30_000, endpoint=False)
    circle = np.stack([6 + 4.2 * np.cos(turn), 5 + 4.2 * np.sin(turn)], axis=1)
    contours = [outline(ct[0], circle, k) for k in (3, 4)]
    with pytest.warns(UserWarning, match="64 kByte"):  # pydicom: such a contour is written as UN
        path = put(structure_set(ct[1], [("Liver", contours)]), tmp_path / "a" / "rt")
    assert path.stat().st_size > 2**20
    run_ingest(tmp_path / "a")
    x, y = np.indices(SHAPE[:2])
    expected = np.zeros(SHAPE, bool)
    expected[:, :, 3:5] = (((x - 6) ** 2 + (y - 5) ** 2) < 4.2**2)[:, :, None]
    np.testing.assert_array_equal(only(tmp_path / "cohort").label.voxels, expected)


def placed(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(X, Y) of `inside`, in the whole plane."""
    mask = np.zeros(shape, bool)
    box, filled = inside(points, shape, CrossingBudget())
    mask[box] = filled
    return mask


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 9))
def test_inside_equals_naive_ray_casting(seed, count):
    points = np.random.default_rng(seed).uniform(-4, 16, (count, 2))  # crossing itself, and beyond the plane
    shape = (9, 12)
    expected = np.zeros(shape, bool)
    for x, y in np.ndindex(*shape):
        crossings = 0
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if (y0 <= y) != (y1 <= y):
                crossings += x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
        expected[x, y] = crossings % 2
    np.testing.assert_array_equal(placed(points, shape), expected)


def test_inside_equals_matplotlib_for_a_star():
    from matplotlib.path import Path as Outline

    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radius = np.where(np.arange(14) % 2, 4.3, 13.1)
    star = np.stack([15.2 + radius * np.cos(turn), 11.7 + radius * np.sin(turn)], axis=1)
    centres = np.stack(np.meshgrid(np.arange(31), np.arange(24), indexing="ij"), axis=-1)
    expected = Outline(np.vstack([star, star[:1]]), closed=True).contains_points(centres.reshape(-1, 2)).reshape(31, 24)
    np.testing.assert_array_equal(placed(star, (31, 24)), expected)


def test_inside_partitions_adjacent_squares():
    left = np.array([[1, 1], [4, 1], [4, 5], [1, 5.0]])
    both = placed(left, (9, 7)).astype(int) + placed(left + np.array([3, 0]), (9, 7))
    assert both.max() == 1
    assert both.sum() == 6 * 4


def test_inside_limits_crossings_of_a_zigzag():
    zigzag = np.array([[i % 7, (i % 2) * 5000.0] for i in range(2000)])
    with pytest.raises(Rejected, match="TOO_LARGE"):
        inside(zigzag, (8, 5000), CrossingBudget(1_000_000))
