import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from stored_scans import noise, store_scan

from medssl.errors import PluginError
from medssl.loading.crops import Crop
from medssl.loading.loader import RegionLoader
from medssl.loading.plan import BatchPlan
from medssl.views.region import Region

CPU = torch.device("cpu")
TURNED = Crop(size=(9, 11, 13), rotation_deg=(25.0, 15.0, 35.0), zoom=(0.8, 1.25), stretch=1.1, flip=(0.5, 0.5, 0.5))
MIXED = Crop(size=(9, 12, 10), rotation_deg=(25.0, 15.0, 35.0), flip=(0.5, 0.5, 0.5), rotate90=True, probability=0.5)
SHAPES = [(20, 22, 24), (30, 18, 26), (17, 40, 15), (9, 8, 30), (7, 7, 7)]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return [
        store_scan(folder, f"scan-{i}", noise(s, i) / 7.0, label=(noise(s, i + 50) % 4).astype(np.uint8))
        for i, s in enumerate(SHAPES)
    ]


def regions(scans, crops, *, batch_size=5, count=3, seed=11):
    plan = BatchPlan(scans, crops, batch_size=batch_size, seed=seed)
    with RegionLoader(plan, workers=0, first_step=0, with_labels=True) as loader:
        return [(b, Region(b, device=CPU, seed=seed)) for b, _ in zip(loader, range(count), strict=False)]


def naive(scan, matrix: np.ndarray, size, *, order: int, label: bool = False) -> np.ndarray:
    """The same patch by scipy from the whole scan: the reference that knows no boxes and no batches."""
    if label:
        whole, pad_value = scan.read_label((0, 0, 0), scan.shape).astype(np.float64), 0.0
    else:
        whole, pad_value = scan.normalised().numpy().astype(np.float64), scan.normalisation.pad_value
    grid = np.stack([*np.indices(size), np.ones(size)]).reshape(4, -1)
    # One voxel of padding beyond the scan, so that values fall to it linearly.
    padded = np.pad(whole, 1, constant_values=pad_value)
    return map_coordinates(padded, matrix @ grid + 1, order=order, mode="constant", cval=pad_value).reshape(size)


def by_id(scans):
    return {scan.scan_id: scan for scan in scans}


def test_rotated_crop_matches_scipy(scans):
    for _, region in regions(scans, {"a": TURNED}):
        images, matrices = region.crop("a"), region.matrix("a").double().numpy()
        assert images.shape == (5, 1, 9, 11, 13)
        for row, scan_id in enumerate(region.scan_ids):
            expected = naive(by_id(scans)[scan_id], matrices[row], TURNED.size, order=1)
            assert np.abs(images[row, 0].numpy() - expected).max() < 2e-4


def test_window_crop_is_bit_exact(scans):
    crop = Crop(size=(9, 12, 10), flip=(0.5, 0.5, 0.5), rotate90=True)
    for batch, region in regions(scans, {"a": crop}, count=6):
        assert batch.exact["a"].all()
        images, matrices = region.crop("a"), region.matrix("a").double().numpy()
        for row, scan_id in enumerate(region.scan_ids):
            whole = by_id(scans)[scan_id].normalised().numpy()
            places = (matrices[row] @ np.stack([*np.indices(crop.size), np.ones(crop.size)]).reshape(4, -1)).astype(int)
            inside = ((places >= 0) & (places < np.array(whole.shape)[:, None])).all(axis=0)
            cut = images[row, 0].numpy().ravel()
            assert np.allclose(cut[inside], whole[tuple(places[:, inside])], atol=2e-6)
            assert (cut[~inside] == cut.min()).all()


def test_mixed_batch_equals_separate_crops(scans):
    seen = []
    for batch, region in regions(scans, {"a": MIXED}, count=4):
        images, matrices = region.crop("a"), region.matrix("a").double().numpy()
        seen += batch.exact["a"].tolist()
        for row, scan_id in enumerate(region.scan_ids):
            expected = naive(by_id(scans)[scan_id], matrices[row], MIXED.size, order=1)
            assert np.abs(images[row, 0].numpy() - expected).max() < 2e-4
    assert {True, False} == set(seen)


def test_batch_equals_single_samples(scans):
    for _, together in regions(scans, {"a": MIXED, "b": TURNED}, batch_size=5, count=2):
        alone = {}
        for _, region in regions(scans, {"a": MIXED, "b": TURNED}, batch_size=1, count=10):
            alone[region.numbers[0]] = region
        for name in ("a", "b"):
            for row, number in enumerate(together.numbers):
                assert torch.allclose(together.crop(name)[row], alone[number].crop(name)[0], atol=1e-5)
                assert torch.equal(together.valid(name)[row], alone[number].valid(name)[0])
                assert (together.label(name)[row] == alone[number].label(name)[0]).float().mean() > 0.999


def test_label_crop_follows_image(scans):
    for _, region in regions(scans, {"a": MIXED}, count=3):
        labels, matrices = region.label("a"), region.matrix("a").double().numpy()
        assert labels.dtype == torch.int64
        assert set(labels.unique().tolist()) <= {0, 1, 2, 3}
        for row, scan_id in enumerate(region.scan_ids):
            expected = naive(by_id(scans)[scan_id], matrices[row], MIXED.size, order=0, label=True)
            # Places half-way between two voxels may fall to either side.
            assert (labels[row, 0].numpy() == expected).mean() > 0.995


def test_valid_marks_voxels_in_scan(scans):
    for _, region in regions(scans, {"a": MIXED}, count=3):
        matrices = region.matrix("a").double().numpy()
        for row, scan_id in enumerate(region.scan_ids):
            shape = np.array(by_id(scans)[scan_id].shape)[:, None]
            grid = np.stack([*np.indices(MIXED.size), np.ones(MIXED.size)]).reshape(4, -1)
            places = matrices[row] @ grid
            expected = ((places >= -0.5) & (places < shape - 0.5)).all(axis=0).reshape(MIXED.size)
            assert (region.valid("a")[row, 0].numpy() == expected).mean() > 0.999


def test_small_scan_is_padded_with_lowest_value(scans):
    tiny = [s for s in scans if s.scan_id == "scan-4"]
    _, region = regions(tiny, {"a": Crop(size=(12, 12, 12))}, batch_size=2, count=1)[0]
    image, valid = region.crop("a"), region.valid("a")
    assert valid.sum(dim=(1, 2, 3, 4)).tolist() == [343, 343]
    pad_value = tiny[0].normalisation.pad_value
    assert torch.allclose(image[~valid], torch.tensor(pad_value), atol=1e-6)
    assert image.min() >= pad_value - 1e-6


def test_overlapping_crops_agree(scans):
    crops = {"a": Crop(size=(6, 6, 6)), "b": Crop(size=(4, 4, 4), anchor="a")}
    for _, region in regions(scans, crops, count=2):
        a, b = region.crop("a"), region.crop("b")
        shift = (region.matrix("b")[:, :, 3] - region.matrix("a")[:, :, 3]).int().tolist()
        for row, (d, h, w) in enumerate(shift):
            assert torch.equal(a[row, 0, d : d + 4, h : h + 4, w : w + 4], b[row, 0])


def test_crop_owns_its_memory(scans):
    _, region = regions(scans, {"a": MIXED}, count=1)[0]
    first = region.crop("a")
    before = first.clone()
    first.zero_()
    assert torch.equal(region.crop("a"), before)


def test_undeclared_crop_is_named(scans):
    _, region = regions(scans, {"a": MIXED}, count=1)[0]
    with pytest.raises(PluginError, match="crop 'view' was not declared"):
        region.crop("view")


def test_region_has_spacing_and_numbers(scans):
    _, region = regions(scans, {"a": MIXED}, count=2)[1]
    assert region.numbers == (5, 6, 7, 8, 9)
    assert torch.allclose(region.spacing_mm, torch.tensor([2.5, 1.1, 0.8]).expand(5, 3))
    assert region.crop_names == ("a",)
    assert region.size("a") == MIXED.size


def test_anchored_crops_lie_at_known_positions(scans):
    turned = {"rotation_deg": (10.0, 10.0, 10.0), "flip": (0.0, 0.0, 0.5)}
    small = Crop((6, 6, 6), zoom=(1.0, 1.6), anchor="global-0", max_offset=0.35, **turned)
    crops = {
        "global-0": Crop((10, 10, 10), zoom=(0.8, 1.25), **turned),
        "global-1": Crop((10, 10, 10), zoom=(0.8, 1.25), anchor="global-0", max_offset=0.175, **turned),
        "local-0": small,
        "local-1": small,
    }
    for _, region in regions(scans[:3], crops, count=2):
        corner = torch.tensor([0.0, 5.0, 3.0, 1.0])
        for name in ("global-1", "local-1"):
            there = region.between(name, "global-0") @ corner
            in_scan = region.matrix(name) @ corner
            back = region.matrix("global-0") @ torch.cat([there, torch.ones(5, 1)], dim=1)[:, :, None]
            assert torch.allclose(back[:, :, 0], in_scan, atol=1e-3)
        middle = region.between("local-0", "global-0") @ torch.tensor([2.5, 2.5, 2.5, 1.0])
        assert ((middle > -2) & (middle < 11)).all()
