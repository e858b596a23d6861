import pickle

import numpy as np
import pytest
from stored_scans import OBLIQUE, noise, ramp, store_scan

from medssl.errors import DataError
from medssl.geometry import Volume
from medssl.store.policy import StorePolicy
from medssl.store.volumes import open_volume, verify_volume, write_volume


def test_box_is_read_in_tensor_order(tmp_path):
    voxels = noise((70, 66, 90))
    stored = store_scan(tmp_path, "a", voxels)
    assert stored.shape == (90, 66, 70)
    assert stored.spacing_mm == pytest.approx((2.5, 1.1, 0.8))
    box = stored.read((3, 60, 50), (80, 66, 69))
    assert box.flags["C_CONTIGUOUS"]
    assert np.array_equal(box, voxels[50:69, 60:66, 3:80].transpose(2, 1, 0))


def test_stored_affine_matches_scan(tmp_path):
    scan = Volume(
        np.ascontiguousarray(ramp()[::-1]),
        OBLIQUE @ np.array([[-1, 0, 0, 13], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    stored = write_volume(tmp_path, "a", scan, modality="MR", label=None, policy=StorePolicy())
    place = scan.affine_ras_mm @ [2, 3, 4, 1]
    x, y, z = np.rint(np.linalg.inv(stored.affine_ras_mm) @ place)[:3].astype(int).tolist()
    assert stored.read((z, y, x), (z + 1, y + 1, x + 1)).item() == scan.voxels[2, 3, 4]


def test_quantisation_keeps_whole_numbers(tmp_path):
    voxels = noise((12, 9, 7)) - 1500
    stored = store_scan(tmp_path, "ct", voxels, modality="CT")
    assert (stored.scale, stored.offset) == (1.0, 0.0)
    assert np.array_equal(stored.read((0, 0, 0), stored.shape).transpose(2, 1, 0), voxels)


def test_quantisation_keeps_twelve_bits_and_range(tmp_path):
    """4096 levels between the half per cents, and clipping far beyond them only."""
    voxels = np.random.default_rng(0).normal(3.0, 0.5, (30, 31, 32))
    voxels[0, 0, 0] = 20.0  # a spike that must not cost the tissue its levels
    stored = store_scan(tmp_path, "a", voxels)
    back = stored.read((0, 0, 0), stored.shape).transpose(2, 1, 0) * stored.scale + stored.offset
    low, high = np.percentile(voxels, [0.5, 99.5])
    assert np.abs(back - voxels).max() <= 0.51 * (high - low) / 4095
    assert back[0, 0, 0] == pytest.approx(20.0, abs=0.001)


@pytest.mark.parametrize("spikes", [(-1e6, 1e6), (0.0, 1e9), (-1e9, 0.0)])
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_quantisation_clips_hot_voxel(tmp_path, spikes, kind):
    voxels = (np.random.default_rng(0).normal(0.0, 1000.0, (30, 31, 32))).astype(kind)
    voxels[0, 0, 0], voxels[1, 0, 0] = spikes
    stored = store_scan(tmp_path, "a", voxels)
    back = stored.read((0, 0, 0), stored.shape).transpose(2, 1, 0) * stored.scale + stored.offset
    tissue = np.abs(voxels) < 1e5
    low, high = np.percentile(voxels, [0.5, 99.5])
    assert np.abs(back - voxels)[tissue].max() <= 0.51 * (high - low) / 4095
    assert np.array_equal(np.sign(back[:2, 0, 0]), np.sign(spikes)) or 0.0 in spikes
    assert np.abs(back[:2, 0, 0]).max() > 3 * high  # clipped, and still far out


def test_quantisation_keeps_body_in_nearly_empty_scan(tmp_path):
    """Percentiles over the scan would see air only."""
    voxels = np.random.default_rng(0).normal(0.0, 1e-6, (40, 41, 42))
    voxels[20:28, 20:28, 20:28] = np.linspace(1.0, 2.0, 512).reshape(8, 8, 8)
    stored = store_scan(tmp_path, "a", voxels)
    back = stored.read((0, 0, 0), stored.shape).transpose(2, 1, 0) * stored.scale + stored.offset
    assert np.abs(back - voxels)[20:28, 20:28, 20:28].max() < 0.001


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1.0, 1e9])
def test_store_is_invariant_to_units(tmp_path, unit):
    voxels = np.random.default_rng(0).normal(5.0, 1.0, (20, 21, 22))
    plain, scaled = (store_scan(tmp_path, name, voxels * by).normalised() for name, by in (("a", 1.0), ("b", unit)))
    assert float((plain - scaled).abs().max()) < 0.01


@pytest.mark.parametrize("packing", ["lz4", "none"])
def test_label_with_255_classes_is_stored(tmp_path, packing):
    label = (np.arange(16 * 17 * 18) % 256).astype(np.uint8).reshape(16, 17, 18)
    stored = store_scan(tmp_path, "many", noise((16, 17, 18)), label=label, packing=packing)
    assert sorted(stored.class_voxels) == list(range(1, 256))
    for value, places in stored.class_voxels.items():
        assert all(label[w, h, d] == value for d, h, w in places)
    verify_volume(tmp_path, "many")


def test_constant_scan_is_stored(tmp_path):
    stored = store_scan(tmp_path, "a", np.full((8, 9, 10), 0.37))
    assert np.allclose(stored.read((0, 0, 0), stored.shape) * stored.scale + stored.offset, 0.37)
    assert np.isfinite(stored.normalised().numpy()).all()


def test_normalised_scan_has_mean_zero_std_one(tmp_path):
    voxels = np.zeros((40, 40, 40), np.int16)
    voxels[10:30, 10:30, 10:30] = noise((20, 20, 20)) + 500
    image = store_scan(tmp_path, "a", voxels).normalised().numpy()[10:30, 10:30, 10:30]
    assert image.mean() == pytest.approx(0.0, abs=0.01)
    assert image.std() == pytest.approx(1.0, abs=0.01)


def test_ct_normalisation_is_fixed(tmp_path):
    water = store_scan(tmp_path, "a", np.zeros((8, 8, 8), np.int16), modality="CT")
    dense = store_scan(tmp_path, "b", np.full((8, 8, 8), 1000, np.int16), modality="CT")
    assert water.normalisation == dense.normalisation
    assert water.normalised().mean() == 0.0
    assert dense.normalised().mean() == pytest.approx(2.5)


def test_body_box_excludes_air(tmp_path):
    voxels = np.full((48, 40, 36), -1000, np.int16)
    voxels[12:28, 8:24, 16:32] = 40
    voxels[40, 2, 2] = 3000  # one bright voxel of a wire is not the body
    stored = store_scan(tmp_path, "a", voxels, modality="CT")
    assert stored.body_box == ((16, 8, 12), (32, 24, 28))


def test_label_is_stored_with_class_samples(tmp_path):
    label = np.zeros((20, 21, 22), np.uint8)
    label[2:15, 3:15, 4:15] = 1
    label[18, 19, 20] = 5
    stored = store_scan(tmp_path, "a", noise(label.shape), label=label)
    assert stored.has_label
    assert sorted(stored.class_voxels) == [1, 5]
    assert stored.class_voxels[5].tolist() == [[20, 19, 18]]
    whole = stored.read_label((0, 0, 0), stored.shape)
    assert np.array_equal(whole, label.transpose(2, 1, 0))
    d, h, w = stored.class_voxels[1].T
    assert (whole[d, h, w] == 1).all()
    assert len(d) == 512


def test_stored_volume_pickles_small_and_reads_same(tmp_path):
    stored = store_scan(tmp_path, "a", noise((30, 20, 10)))
    letter = pickle.dumps(stored)
    assert len(letter) < 2000
    assert np.array_equal(pickle.loads(letter).read((0, 0, 0), (10, 20, 30)), stored.read((0, 0, 0), (10, 20, 30)))


def test_rewrite_gives_same_bytes_without_leftovers(tmp_path):
    first = store_scan(tmp_path, "a", noise((30, 20, 10)), label=(noise((30, 20, 10)) % 4).astype(np.uint8))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    store_scan(tmp_path, "a", noise((30, 20, 10)), label=(noise((30, 20, 10)) % 4).astype(np.uint8))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert sorted(before) == ["a.b2nd", "a.label.b2nd"]
    verify_volume(tmp_path, first.scan_id)


def test_verify_finds_every_flipped_byte(tmp_path):
    store_scan(tmp_path, "scan-7", noise((64, 32, 48)))  # whole sub-blocks: no byte is mere filling
    path = tmp_path / "scan-7.b2nd"
    whole = path.read_bytes()
    for at in np.random.default_rng(1).integers(len(whole) // 10, len(whole) * 8 // 10, 20):
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        path.write_bytes(bytes(broken))
        with pytest.raises(DataError, match="scan-7"):
            verify_volume(tmp_path, "scan-7")


@pytest.mark.parametrize("keep", [0, 10, 200, 5000])
def test_truncated_file_names_scan(tmp_path, keep):
    store_scan(tmp_path, "scan-7", noise((40, 40, 40)))
    path = tmp_path / "scan-7.b2nd"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"scan-7.*damaged"):
        open_volume(tmp_path, "scan-7")


def test_missing_scan_is_named(tmp_path):
    with pytest.raises(DataError, match="scan-9 is not in the store"):
        open_volume(tmp_path, "scan-9")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_voxels_are_rejected_with_count(tmp_path, value):
    voxels = np.ones((8, 8, 8))
    voxels[2, 3, 4:6] = value
    with pytest.raises(DataError, match="scan a has 2 voxels of 512"):
        store_scan(tmp_path, "a", voxels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8, 2), (8, 0, 8)])
def test_only_3d_scans_are_stored(tmp_path, shape):
    with pytest.raises(DataError, match="Only 3D scans"):
        store_scan(tmp_path, "a", np.ones(shape, np.int16))


def test_label_on_other_grid_is_rejected(tmp_path):
    scan, label = Volume(noise((8, 9, 10)), np.eye(4)), Volume(np.zeros((8, 9, 11), np.uint8), np.eye(4))
    with pytest.raises(DataError, match="another grid"):
        write_volume(tmp_path, "a", scan, modality="MR", label=label, policy=StorePolicy())


@pytest.mark.parametrize("value", [0.5, -1, 256])
def test_label_values_must_be_class_numbers(tmp_path, value):
    with pytest.raises(DataError, match="whole numbers from 0 to 255"):
        store_scan(tmp_path, "a", noise((8, 9, 10)), label=np.full((8, 9, 10), float(value)))


def test_read_label_without_label_is_an_error(tmp_path):
    with pytest.raises(DataError, match="has no label"):
        store_scan(tmp_path, "a", noise((8, 9, 10))).read_label((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(("name", "modality"), [("chris_t1", "MR"), ("body_ct", "CT")])
def test_real_scan_takes_at_most_055_of_float32(tmp_path, real_data, name, modality):
    import nibabel as nib

    image = nib.load(real_data / "nifti" / f"{name}.nii.gz")
    scan = Volume(np.asanyarray(image.dataobj), image.affine)
    stored = write_volume(tmp_path, name, scan, modality=modality, label=None, policy=StorePolicy())
    assert (tmp_path / f"{name}.b2nd").stat().st_size <= 0.55 * 4 * np.prod(stored.shape)
