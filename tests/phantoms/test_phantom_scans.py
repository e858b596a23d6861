"""The synthetic patients: intensities, shapes and grids."""

import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from medssl_phantoms import LABELS, Grid, ct_phantom, mr_phantom
from medssl_phantoms.anatomy import draw_anatomy

OBLIQUE = Grid((30, 41, 25), (9.0, 5.5, 8.5), "LAS", (7.0, -12.0, 4.0), (3.0, -2.0, 5.0))


def best_threshold_dice(image, target):
    """Dice of the best window of intensities, by exhaustive search over percentiles."""
    edges = np.percentile(image, np.arange(0, 101, 2))
    scores = []
    for low in range(len(edges) - 1):
        for high in range(low + 1, len(edges)):
            guess = (image >= edges[low]) & (image < edges[high])
            scores.append(2 * (guess & target).sum() / (guess.sum() + target.sum()))
    return max(scores)


@pytest.mark.parametrize("make", [ct_phantom, mr_phantom])
def test_patients_have_both_organs_and_differ(make):
    sizes = np.array([np.bincount(make(patient)[1].voxels.ravel(), minlength=3)[1:] for patient in range(8)])
    assert set(LABELS) == {0, 1, 2}
    assert (sizes > 250).all()
    assert (sizes.std(axis=0) / sizes.mean(axis=0) > 0.1).all()


@pytest.mark.parametrize("make", [ct_phantom, mr_phantom])
def test_intensity_window_does_not_segment_organs(make):
    for patient in range(3):
        scan, label = make(patient)
        assert best_threshold_dice(scan.voxels, label.voxels == 1) < 0.75
        assert best_threshold_dice(scan.voxels, label.voxels == 2) < 0.5


def test_ct_has_hounsfield_units_table_and_circle():
    scan, label = ct_phantom(5)
    points, half_depth = Grid().points_ras_mm(), draw_anatomy(5).half_depth_mm
    assert scan.voxels.min() == -1024
    assert 70 < np.median(scan.voxels[label.voxels == 1]) < 130
    in_front = scan.voxels[(points[..., 1] > half_depth + 12) & (np.abs(points[..., 0]) < 40)]
    below = scan.voxels[(points[..., 1] < -half_depth - 6) & (np.abs(points[..., 0]) < 40)]
    assert np.median(in_front) == pytest.approx(-1000, abs=40)
    assert np.percentile(below, 90) > -800


def test_mr_contrasts_differ_like_t1_and_t2():
    t1, label = mr_phantom(3, contrast="T1")
    t2, _ = mr_phantom(3, contrast="T2")

    def ratio(scan):
        return np.median(scan.voxels[label.voxels == 2]) / np.median(scan.voxels[label.voxels == 1])

    assert ratio(t1) < 1 < ratio(t2)


def test_mr_coil_shades_one_tissue():
    shares = []
    for patient in range(6):
        scan, label = mr_phantom(patient)
        inside = scan.voxels[label.voxels == 1].astype(float)
        halves = Grid().points_ras_mm()[..., 0][label.voxels == 1] > 40
        shares.append(abs(np.log(np.median(inside[halves]) / np.median(inside[~halves]))))
    assert max(shares) > 0.08


def test_organs_are_independent_of_grid():
    _, plain = mr_phantom(11)
    _, oblique = ct_phantom(11, grid=OBLIQUE)
    for value in (1, 2):
        volumes_ml, centres = [], []
        for label in (plain, oblique):
            where = np.argwhere(label.voxels == value)
            volumes_ml.append(len(where) * abs(np.linalg.det(label.affine_ras_mm[:3, :3])) / 1000)
            centres.append((label.affine_ras_mm @ [*where.mean(axis=0), 1])[:3])
        assert volumes_ml[0] == pytest.approx(volumes_ml[1], rel=0.1)
        assert np.linalg.norm(centres[0] - centres[1]) < 3.5


def test_grid_affine_matches_parameters():
    affine = OBLIQUE.affine_ras_mm
    assert aff2axcodes(affine) == ("L", "A", "S")
    assert np.linalg.norm(affine[:3, :3], axis=0) == pytest.approx(OBLIQUE.spacing_mm)
    directions = affine[:3, :3] / np.array(OBLIQUE.spacing_mm)
    assert directions.T @ directions == pytest.approx(np.eye(3), abs=1e-12)
    assert (affine @ [14.5, 20, 12, 1])[:3] == pytest.approx((3.0, -2.0, 5.0))
    assert OBLIQUE.points_ras_mm()[3, 7, 2] == pytest.approx((affine @ [3, 7, 2, 1])[:3])


def test_liver_and_kidneys_lie_correctly():
    points = Grid().points_ras_mm()
    for patient in range(5):
        _, label = ct_phantom(patient)
        liver, kidneys = (points[label.voxels == value].mean(axis=0) for value in (1, 2))
        assert liver[0] > 20
        assert abs(kidneys[0]) < 20
        assert kidneys[1] < liver[1] - 15


def test_second_scan_differs_by_noise():
    first, label = ct_phantom(2)
    second, same_label = ct_phantom(2, scan=1)
    again, _ = ct_phantom(2)
    difference = second.voxels.astype(float) - first.voxels
    assert (first.voxels == again.voxels).all()
    assert (label.voxels == same_label.voxels).all()
    assert abs(difference[label.voxels > 0].mean()) < 4
    assert 5 < difference[label.voxels > 0].std() < 40
