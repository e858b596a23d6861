import pickle

import numpy as np
import pytest
from scipy import ndimage
from stored_scans import store_scan

from medssl.store.body import body_mask, coarse_mask, find_body, with_cavities


def ct_of_a_chest() -> np.ndarray:
    """(d, h, w) HU: an elliptic trunk with two lungs that run through all slices, on a thin couch, in air."""
    d, h, w = np.indices((40, 96, 120))
    trunk = ((h - 48) / 34) ** 2 + ((w - 60) / 48) ** 2 < 1
    lungs = ((h - 48) / 16) ** 2 + ((np.abs(w - 60) - 22) / 13) ** 2 < 1
    voxels = np.full(d.shape, -1000, np.int16)
    voxels[trunk], voxels[lungs], voxels[:, 90, 10:110] = 40, -850, 100
    return voxels


def test_mask_holds_body_without_air_and_couch():
    voxels = ct_of_a_chest()
    box, mask = find_body(voxels, "CT")
    assert (mask.edges, mask.shape) == ((8, 8, 8), (5, 12, 15))
    _, h, w = np.indices(voxels.shape)
    trunk = ((h - 48) / 34) ** 2 + ((w - 60) / 48) ** 2 < 1
    share = trunk.reshape(5, 8, 12, 8, 15, 8).mean(axis=(1, 3, 5))
    assert np.array_equal(mask.cells, share >= 0.25)
    assert mask.cells[2, 6, 4]  # in a lung
    assert box == ((0, 12, 12), (40, 92, 108))  # in cells of 4 voxels, the couch is a quarter


def test_cavities_match_scipy_fill_per_slice():
    cells = np.random.default_rng(0).random((6, 20, 25)) < 0.6
    expected = np.stack([ndimage.binary_fill_holes(plane) for plane in cells])
    assert np.array_equal(with_cavities(cells), expected)


@pytest.mark.parametrize("edges", [(8, 8, 8), (4, 5, 7)])
def test_cell_is_body_from_quarter_of_voxels(edges):
    """Thin cells at the end of an axis follow the same rule."""
    mask = np.random.default_rng(0).random((21, 34, 19)) < 0.25
    cells = coarse_mask(mask, edges)
    for index in np.ndindex(cells.shape):
        place = tuple(slice(i * e, (i + 1) * e) for i, e in zip(index, edges, strict=True))
        assert cells[index] == (mask[place].mean() >= 0.25)


def test_scan_without_body_has_full_mask():
    box, mask = find_body(np.full((20, 30, 40), -1000, np.int16), "CT")
    assert box == ((0, 0, 0), (20, 30, 40))
    assert mask.cells.all()


def test_mask_cells_grow_with_scan():
    voxels = np.zeros((20, 300, 30), np.int16)
    _, mask = find_body(voxels, "CT")
    assert (mask.edges, mask.shape) == ((8, 10, 8), (3, 30, 4))


def test_mask_survives_store_and_is_small(tmp_path):
    voxels = ct_of_a_chest()
    stored = store_scan(tmp_path, "a", voxels.transpose(2, 1, 0), modality="CT")
    assert np.array_equal(stored.body_mask.cells, find_body(voxels, "CT")[1].cells)
    assert len(pickle.dumps(stored)) < 2000


def test_body_threshold_is_compared_in_double_precision():
    """float32(0.1) lies above 0.1. Compared in float32, a voxel of that value would fall out of the body."""
    voxels = np.zeros((8, 8, 8), np.float32)
    voxels[4:] = 1.0
    voxels[0, 0, 0] = 0.1
    assert body_mask(voxels, "MR")[0, 0, 0]
