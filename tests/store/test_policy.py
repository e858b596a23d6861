import nibabel as nib
import numpy as np
import pytest
from stored_scans import OBLIQUE, noise, ramp

from medssl.errors import DataError
from medssl.geometry import Volume
from medssl.store.policy import StorePolicy, to_native_grid, to_store_grid

# Axes in the order superior, left, posterior: what a sagittal acquisition may look like.
SAGITTAL = OBLIQUE @ np.array([[0, -1, 0, 13], [0, 0, -1, 10], [1, 0, 0, 0], [0, 0, 0, 1.0]])


def world_value(volume: Volume, point_mm: np.ndarray) -> float:
    """Value of the voxel at a place in the patient; the place must be a voxel centre."""
    index = np.linalg.inv(volume.affine_ras_mm) @ [*point_mm, 1.0]
    assert np.allclose(index[:3], np.rint(index[:3]), atol=1e-6)
    return float(volume.voxels[tuple(np.rint(index[:3]).astype(int))])


def test_native_spacing_only_reorients_to_ras():
    """Every voxel keeps its position in the patient."""
    scan = Volume(ramp((9, 14, 11)), SAGITTAL)
    stored = to_store_grid(scan, policy=StorePolicy(), modality="MR")
    assert nib.aff2axcodes(stored.affine_ras_mm) == ("R", "A", "S")
    assert stored.voxels.dtype == np.int16
    for index in [(0, 0, 0), (8, 13, 10), (3, 7, 2)]:
        place = (SAGITTAL @ [*index, 1.0])[:3]
        assert world_value(stored, place) == scan.voxels[index]


def test_resampling_reproduces_linear_ramp():
    policy = StorePolicy(spacing_mm={"CT": (1.0, 1.0, 2.0)}, keep_through_plane=False)
    i, j, k = np.indices((20, 17, 12))
    world = np.einsum("ab,bijk->aijk", OBLIQUE[:3, :3], np.stack([i, j, k])) + OBLIQUE[:3, 3, None, None, None]
    plane = np.array([2.0, -1.0, 0.5])
    scan = Volume(np.einsum("a,aijk->ijk", plane, world), OBLIQUE)
    stored = to_store_grid(scan, policy=policy, modality="CT")
    assert np.allclose(stored.spacing_mm, (1.0, 1.0, 2.0))
    i, j, k = np.indices(stored.shape)
    affine = stored.affine_ras_mm
    expected = np.einsum(
        "a,aijk->ijk",
        plane,
        np.einsum("ab,bijk->aijk", affine[:3, :3], np.stack([i, j, k])) + affine[:3, 3, None, None, None],
    )
    inner = (slice(2, -2),) * 3  # the edge voxel is repeated beyond the last centre
    assert np.allclose(stored.voxels[inner], expected[inner], atol=1e-4)


def test_resampling_keeps_centre_of_field_of_view():
    scan = Volume(noise((20, 17, 12)).astype(np.float32), SAGITTAL)
    stored = to_store_grid(
        scan, policy=StorePolicy(other_spacing_mm=(1.3, 1.3, 1.3), keep_through_plane=False), modality="MR"
    )
    middle = [(np.array(v.shape) - 1) / 2 for v in (scan, stored)]
    world = [v.affine_ras_mm @ [*m, 1.0] for v, m in zip((scan, stored), middle, strict=True)]
    assert np.allclose(world[0], world[1], atol=1e-9)


def test_coarser_grids_average_and_do_not_alias():
    stripes = np.zeros((32, 4, 4), np.float32)
    stripes[::2] = 1.0
    scan = Volume(stripes, np.eye(4))
    stored = to_store_grid(scan, policy=StorePolicy(other_spacing_mm=(4.0, 1.0, 1.0)), modality="MR")
    assert stored.shape == (8, 4, 4)
    assert np.allclose(stored.voxels[1:-1], 0.5, atol=0.01)  # taking every fourth voxel would give 0 or 1


def test_anisotropic_scan_keeps_through_plane_spacing():
    thick = Volume(noise((20, 20, 6)), np.diag([0.5, 0.5, 5.0, 1.0]))
    kept = to_store_grid(thick, policy=StorePolicy(other_spacing_mm=(1.0, 1.0, 1.0)), modality="MR")
    assert np.allclose(kept.spacing_mm, (1.0, 1.0, 5.0))
    policy = StorePolicy(other_spacing_mm=(1.0, 1.0, 1.0), keep_through_plane=False)
    assert np.allclose(to_store_grid(thick, policy=policy, modality="MR").spacing_mm, (1.0, 1.0, 1.0))


def test_policy_spacing_per_modality():
    policy = StorePolicy(spacing_mm={"CT": (2.0, 2.0, 2.0)})
    scan = Volume(noise((10, 10, 10)), np.eye(4))
    assert to_store_grid(scan, policy=policy, modality="MR").shape == (10, 10, 10)
    assert to_store_grid(scan, policy=policy, modality="CT").shape == (5, 5, 5)


def test_resampled_labels_stay_labels():
    label = (noise((20, 17, 12)) % 3 * 7).astype(np.uint8)
    stored = to_store_grid(
        Volume(label, OBLIQUE), policy=StorePolicy(other_spacing_mm=(1.3, 0.7, 2.0)), modality="MR", nearest=True
    )
    assert stored.voxels.dtype == np.uint8
    assert set(np.unique(stored.voxels)) <= {0, 7, 14}


@pytest.mark.parametrize("affine", [OBLIQUE, SAGITTAL])
def test_native_grid_round_trip_is_exact(affine):
    native = Volume(ramp((9, 14, 11)), affine)
    stored = to_store_grid(native, policy=StorePolicy(), modality="MR")
    back = to_native_grid(stored.voxels.transpose(2, 1, 0), stored.affine_ras_mm, native, nearest=True)
    assert np.array_equal(back, native.voxels)


def test_native_grid_round_trip_from_finer_grid():
    affine = SAGITTAL
    ball = np.zeros((24, 30, 26), np.uint8)
    grid = np.indices(ball.shape)
    centre = np.array([11.0, 14.0, 12.0])
    ball[((grid - centre[:, None, None, None]) ** 2).sum(axis=0) < 64] = 1
    native = Volume(ball, affine)
    policy = StorePolicy(other_spacing_mm=(0.6, 0.6, 0.6), keep_through_plane=False)
    stored = to_store_grid(native, policy=policy, modality="MR", nearest=True)
    back = to_native_grid(stored.voxels.transpose(2, 1, 0), stored.affine_ras_mm, native, nearest=True)
    assert back.shape == ball.shape
    assert np.array_equal(back, ball)


def test_native_grid_rejects_rotated_grid():
    native = Volume(ramp(), OBLIQUE)
    with pytest.raises(DataError, match="not parallel"):
        to_native_grid(np.zeros((9, 11, 14)), np.diag([0.8, 1.1, 2.5, 1.0]), native, nearest=True)
