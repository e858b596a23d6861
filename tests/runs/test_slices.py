"""Planes as radiologists see them, labels found, scales kept."""

import numpy as np
import pytest

from medssl.runs.contact_sheet import colour_errors, colour_labels, fit, focus_voxel, grey, plane_slice

MIDDLE = (0.5, 0.5, 0.5)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_plane_slice_has_radiological_orientation(plane):
    volume = np.zeros((5, 6, 7))
    volume[4] += 1  # superior
    volume[:, 5] += 10  # anterior
    volume[:, :, 6] += 100  # the patient's right: RAS, so the last voxel along W
    cut = plane_slice(volume, plane, MIDDLE)
    top, left = cut[0].mean() - cut[-1].mean(), cut[:, 0].mean() - cut[:, -1].mean()
    expected = {"axial": (10, 100), "coronal": (1, 100), "sagittal": (1, 10)}
    assert (top, left) == pytest.approx(expected[plane])


def test_focus_voxel_lies_in_largest_cut():
    labels = np.zeros((5, 6, 7), np.int64)
    labels[1, 2:5, 3] = 2
    labels[1, 4, 3:6] = 1
    focus = focus_voxel(labels, labels.shape)
    d, h, w = (int(share * edge) for share, edge in zip(focus, labels.shape, strict=True))
    assert (d, h, w) == (1, 4, 3)
    assert plane_slice(labels, "axial", focus).any()


def test_focus_voxel_of_empty_label_is_the_middle():
    slice_number = np.arange(5)[:, None, None] * np.ones((5, 6, 7))
    assert (plane_slice(slice_number, "axial", focus_voxel(None, (5, 6, 7))) == 2).all()


def test_grey_maps_window_and_clips():
    pixels = grey(np.array([[-5.0, 0.0, 1.0, 2.0, 9.0, np.nan]]), 0.0, 2.0)
    assert pixels[0, :5, 0].tolist() == [0, 0, 128, 255, 255]
    assert pixels[0, 5].tolist() == [255, 0, 255]


def test_colour_errors_ignores_sign():
    pixels = colour_errors(np.array([[0.0, 0.25, -0.25, 0.5, 1.0, 2.0]]), 1.0).astype(int).sum(axis=2)[0]
    assert pixels[0] == 0
    assert pixels[1] == pixels[2] < pixels[3] < pixels[4] == pixels[5]


def test_colour_labels_keeps_background():
    under = np.full((1, 4, 3), 100, np.uint8)
    pixels = colour_labels(np.array([[0, 1, 2, 1]]), under)
    assert pixels[0, 0].tolist() == [100, 100, 100]
    assert pixels[0, 1].tolist() == pixels[0, 3].tolist() != pixels[0, 2].tolist()


def test_fit_repeats_small_and_averages_large_tiles():
    tile = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(fit(tile, 12, longest=3)[::4, ::4], tile)
    checker = (np.indices((8, 8)).sum(axis=0) % 2 * 200).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert set(fit(checker, 4, longest=8).ravel().tolist()) == {100}
