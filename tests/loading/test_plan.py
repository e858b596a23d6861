import itertools
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medssl.errors import ConfigError, DataError
from medssl.loading.crops import Crop
from medssl.loading.placement import is_exact, rotation
from medssl.loading.plan import BatchPlan
from medssl.store.body import BodyMask
from medssl.store.normalisation import Normalisation
from medssl.store.volumes import StoredVolume


def scan(
    scan_id: str, shape=(40, 50, 60), *, box=None, spacing=(1.0, 1.0, 1.0), classes=None, mask=None
) -> StoredVolume:
    """A scan without a file: planning reads nothing. spacing along X, Y, Z in mm."""
    return StoredVolume(
        scan_id=scan_id,
        folder=Path("/nowhere"),
        shape=shape,
        affine_ras_mm=np.diag([*spacing, 1.0]),
        modality="MR",
        scale=1.0,
        offset=0.0,
        normalisation=Normalisation(0.0, 1.0, 0.5, 0.25),
        body_box=box or ((0, 0, 0), shape),
        has_label=bool(classes),
        class_voxels=classes or {},
        body_mask=mask,
    )


MOVED = Crop(size=(12, 16, 20), rotation_deg=(30.0, 20.0, 10.0), zoom=(0.8, 1.3), stretch=1.1, flip=(0.5, 0.5, 0.5))


def starts(plan: BatchPlan, n: int, name: str = "patch") -> np.ndarray:
    """(n, 3) first scan voxel of plain patches."""
    return np.array([plan.sample(i).crops[name][:, 3] for i in range(n)])


def same(a, b) -> bool:
    return (a.number, a.scan_id, a.start, a.stop) == (b.number, b.scan_id, b.start, b.stop) and all(
        np.array_equal(a.crops[n], b.crops[n]) for n in a.crops
    )


def test_plan_is_a_function_of_seed_and_step():
    scans = [scan(f"s{i}") for i in range(7)]
    one, other = (BatchPlan(scans, {"a": MOVED}, batch_size=4, seed=5) for _ in range(2))
    for step in (9, 0, 3, 9):  # any order, any past
        assert all(same(x, y) for x, y in zip(one.batch(step), other.batch(step), strict=True))
    another = BatchPlan(scans, {"a": MOVED}, batch_size=4, seed=6)
    assert not any(same(x, y) for x, y in zip(one.batch(0), another.batch(0), strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_plan_ranks_share_global_batch(world_size):
    plan = BatchPlan([scan(f"s{i}") for i in range(7)], {"a": MOVED}, batch_size=8, seed=5)
    parts = itertools.chain.from_iterable(plan.batch(3, rank=r, world_size=world_size) for r in range(world_size))
    assert all(same(x, y) for x, y in zip(parts, plan.batch(3), strict=True))


def test_plan_rejects_uneven_batch():
    with pytest.raises(ConfigError, match="batch of 4 cannot be split over 3 ranks"):
        BatchPlan([scan("s")], {"a": MOVED}, batch_size=4, seed=0).batch(0, rank=0, world_size=3)


def test_plan_visits_every_scan_once_per_epoch():
    plan = BatchPlan([scan(f"s{i}") for i in range(11)], {"a": MOVED}, batch_size=3, seed=1)
    ids = [plan.scan_of(n).scan_id for n in range(33)]
    epochs = [ids[i : i + 11] for i in (0, 11, 22)]
    assert all(len(set(epoch)) == 11 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_plan_regions_per_scan_are_consecutive():
    plan = BatchPlan([scan(f"s{i}") for i in range(5)], {"a": MOVED}, batch_size=3, seed=1, regions_per_scan=3)
    ids = [plan.scan_of(n).scan_id for n in range(15)]
    assert all(len(set(ids[i : i + 3])) == 1 for i in range(0, 15, 3))
    assert len(set(ids)) == 5
    assert not np.array_equal(plan.sample(0).crops["a"], plan.sample(1).crops["a"])


def test_plan_weights_are_scan_frequencies():
    plan = BatchPlan([scan(f"s{i}") for i in range(3)], {"a": MOVED}, batch_size=1, seed=2, weights=[1.0, 0.0, 3.0])
    counts = Counter(plan.scan_of(n).scan_id for n in range(4000))
    assert counts["s1"] == 0
    assert counts["s2"] / 4000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.nan]])
def test_plan_rejects_invalid_weights(weights):
    with pytest.raises(ConfigError, match="weights for 2 scans"):
        BatchPlan([scan("a"), scan("b")], {"a": MOVED}, batch_size=1, seed=2, weights=weights)


def test_plain_patch_reads_exactly_its_window():
    plan = BatchPlan([scan("s")], {"patch": Crop(size=(12, 16, 20))}, batch_size=1, seed=0)
    for n in range(50):
        sample = plan.sample(n)
        assert is_exact(sample.crops["patch"])
        assert np.subtract(sample.stop, sample.start).tolist() == [12, 16, 20]
        assert min(sample.start) >= 0
        assert (np.array(sample.stop) <= (40, 50, 60)).all()


def test_plain_patch_starts_are_uniform():
    plan = BatchPlan([scan("s", (10, 9, 13))], {"patch": Crop(size=(7, 9, 12))}, batch_size=1, seed=0)
    places = starts(plan, 4000)
    for axis, n in ((0, 4), (1, 1), (2, 2)):
        counts = np.bincount(places[:, axis].astype(int), minlength=n)
        assert len(counts) == n
        assert counts.min() > 0.85 * 4000 / n


def test_patches_overlap_body():
    box = ((5, 30, 40), (25, 45, 55))
    plan = BatchPlan([scan("s", (40, 50, 60), box=box)], {"patch": Crop(size=(12, 16, 10))}, batch_size=1, seed=0)
    first = starts(plan, 500)
    overlap = np.minimum(first + np.array([12, 16, 10]), box[1]) - np.maximum(first, box[0])
    assert (overlap >= np.array([9, 12, 7])).all()
    assert first.min(axis=0).tolist() == [2, 26, 37]  # a quarter of the patch beyond the box, in whole voxels


def masked(cells: np.ndarray, edges: tuple[int, int, int]) -> BodyMask:
    return BodyMask(edges, cells.shape, zlib.compress(np.packbits(cells).tobytes()))


def test_in_body_is_the_fraction_of_centres():
    cells = np.zeros((5, 5, 6), bool)
    cells[1, 3, 2] = cells[4, 0, 5] = True
    plan = BatchPlan(
        [scan("s", (40, 36, 48), mask=masked(cells, (8, 8, 8)))],
        {"patch": Crop(size=(7, 7, 7))},
        batch_size=1,
        seed=0,
        in_body=0.75,
    )
    centres = starts(plan, 2000) + 3
    inside = np.all(centres // 8 == (1, 3, 2), axis=1)
    # Of the corner cell (32..39, 0..7, 40..47) only 5 x 5 x 5 places keep the window in the scan.
    corner = np.all(centres // 8 == (4, 0, 5), axis=1)
    box = (39 - 7 + 1) * (36 - 7 + 1) * (48 - 7 + 1)
    assert (inside | corner).mean() == pytest.approx(0.75, abs=0.03 + 700 / box)
    assert corner.sum() / (inside | corner).sum() == pytest.approx(125 / (125 + 512), abs=0.04)


def test_full_mask_keeps_positions_uniform():
    mask = masked(np.ones((2, 2, 2), bool), (8, 8, 8))
    plan = BatchPlan(
        [scan("s", (10, 9, 13), mask=mask)], {"patch": Crop(size=(7, 9, 12))}, batch_size=1, seed=0, in_body=1.0
    )
    places = starts(plan, 4000)
    for axis, n in ((0, 4), (1, 1), (2, 2)):
        counts = np.bincount(places[:, axis].astype(int), minlength=n)
        assert len(counts) == n
        assert counts.min() > 0.85 * 4000 / n


def test_unreachable_body_falls_back_to_box():
    cells = np.zeros((5, 5, 5), bool)
    cells[0, 0, 0] = True
    plan = BatchPlan(
        [scan("s", (40, 40, 40), mask=masked(cells, (8, 8, 8)))],
        {"patch": Crop(size=(36, 36, 36))},
        batch_size=1,
        seed=0,
        in_body=1.0,
    )
    assert starts(plan, 50).max() == 4


def test_in_body_does_not_shift_other_draws():
    scans = [scan(f"s{i}", mask=masked(np.ones((5, 7, 8), bool), (8, 8, 8))) for i in range(3)]
    one = BatchPlan(scans, {"a": MOVED}, batch_size=4, seed=5)
    other = BatchPlan(scans, {"a": MOVED}, batch_size=4, seed=5, in_body=1.0)
    for number in range(20):
        a, b = one.sample(number), other.sample(number)
        assert a.scan_id == b.scan_id
        assert np.array_equal(a.crops["a"][:, :3], b.crops["a"][:, :3])


def test_small_scan_lies_in_patch_completely():
    """The patch covers the whole scan, at a random position."""
    plan = BatchPlan([scan("s", (6, 20, 9))], {"patch": Crop(size=(8, 16, 12))}, batch_size=1, seed=0)
    first = starts(plan, 300)
    assert sorted(set(first[:, 0])) == [-2, -1, 0]
    assert sorted(set(first[:, 2])) == [-3, -2, -1, 0]
    assert plan.sample(0).start[0] == 0
    assert plan.sample(0).stop[0] == 6


def test_foreground_patches_hold_uniform_classes():
    """Each class is as likely as any other, however rare its voxels are."""
    classes = {1: np.array([[3, 4, 5]] * 500, np.int32), 2: np.array([[30, 40, 50]], np.int32)}
    plan = BatchPlan(
        [scan("s", classes=classes)], {"patch": Crop(size=(8, 8, 8))}, batch_size=1, seed=0, foreground=1.0
    )
    first = starts(plan, 400)
    holds = {c: ((first <= v[0]) & (v[0] < first + 8)).all(axis=1) for c, v in classes.items()}
    assert (holds[1] ^ holds[2]).all()
    assert holds[2].mean() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("edge", [7, 8])
def test_foreground_patches_start_on_any_voxel(edge):
    inside = {1: 10 + np.indices((20, 20, 20)).reshape(3, -1).T.astype(np.int32)}
    crops = {"patch": Crop(size=(edge, edge, edge))}
    plan = BatchPlan([scan("s", (40, 40, 40), classes=inside)], crops, batch_size=1, seed=0, foreground=1.0)
    odd = (starts(plan, 400) % 2).mean(axis=0)
    assert (np.abs(odd - 0.5) < 0.1).all()


def test_box_holds_all_interpolated_voxels():
    plan = BatchPlan([scan("s", spacing=(0.7, 0.7, 2.1))], {"a": MOVED, "b": MOVED}, batch_size=1, seed=3)
    grid = np.stack([g.ravel() for g in np.indices(MOVED.size)] + [np.ones(np.prod(MOVED.size))])
    for n in range(20):
        sample = plan.sample(n)
        points = np.concatenate([matrix @ grid for matrix in sample.crops.values()], axis=1)
        low = np.clip(np.floor(points.min(axis=1) + 1e-5), 0, None)
        high = np.minimum(np.ceil(points.max(axis=1) - 1e-5) + 1, (40, 50, 60))
        assert np.array_equal(low, sample.start)
        assert np.array_equal(high, sample.stop)


def test_rotation_is_in_millimetres():
    crop = Crop(size=(8, 8, 8), rotation_deg=(0.0, 0.0, 30.0))
    plan = BatchPlan([scan("s", (40, 80, 40), spacing=(1.0, 0.5, 4.0))], {"a": crop}, batch_size=1, seed=3)
    to_mm = np.diag([4.0, 0.5, 1.0])
    for n in range(10):
        turn = to_mm @ plan.sample(n).crops["a"][:, :3] @ np.linalg.inv(to_mm)
        assert np.allclose(turn @ turn.T, np.eye(3))
        assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) <= 30


def test_rotation_matches_scipy():
    angles = np.array([0.3, -0.7, 1.1])
    # Our axes are named d, h, w; a positive angle turns i into j for the two other axes in this order.
    expected = Rotation.from_euler("xyz", [angles[0], -angles[1], angles[2]]).as_matrix()
    assert np.allclose(rotation(angles), expected)


def test_zoom_above_one_enlarges():
    plan = BatchPlan([scan("s")], {"a": Crop(size=(8, 8, 8), zoom=(2.0, 2.0))}, batch_size=1, seed=3)
    assert np.allclose(plan.sample(0).crops["a"][:, :3], np.eye(3) / 2)


def test_zoom_and_stretch_stay_in_range():
    crop = Crop(size=(8, 8, 8), zoom=(0.5, 1.5), stretch=1.2)
    plan = BatchPlan([scan("s")], {"a": crop}, batch_size=1, seed=3)
    factors = np.array([1 / np.diag(plan.sample(n).crops["a"][:, :3]) for n in range(500)])
    assert factors.min() >= 0.5 / 1.2
    assert factors.max() <= 1.5 * 1.2
    assert (factors.max(axis=1) / factors.min(axis=1)).max() <= 1.2**2
    assert (factors.std(axis=1) > 0).all()


def test_probability_is_of_geometric_changes():
    """Without rotation, zoom and stretch, the patch is a window of whole voxels."""
    crop = Crop(size=(8, 8, 8), rotation_deg=(5.0, 5.0, 5.0), zoom=(0.9, 1.1), probability=0.3, rotate90=True)
    plan = BatchPlan([scan("s")], {"a": crop}, batch_size=1, seed=3)
    assert np.mean([not is_exact(plan.sample(n).crops["a"]) for n in range(1000)]) == pytest.approx(0.3, abs=0.05)


def test_flips_and_quarter_turns_keep_window():
    crop = Crop(size=(4, 6, 6), flip=(0.5, 0.5, 0.5), rotate90=True)
    plan = BatchPlan([scan("s")], {"a": crop}, batch_size=1, seed=3)
    seen = set()
    for n in range(200):
        sample = plan.sample(n)
        assert is_exact(sample.crops["a"])
        assert np.subtract(sample.stop, sample.start).tolist() == [4, 6, 6]
        seen.add(tuple(sample.crops["a"][:, :3].ravel()))
    assert len(seen) == 16  # 8 mirrorings, and for each the turn by a quarter


def test_quarter_turn_swaps_unequal_edges():
    plan = BatchPlan([scan("s")], {"a": Crop(size=(4, 6, 10), rotate90=True)}, batch_size=1, seed=3)
    edges = {tuple(np.subtract(plan.sample(n).stop, plan.sample(n).start).tolist()) for n in range(50)}
    assert edges == {(4, 6, 10), (4, 10, 6)}


def test_anchored_crop_lies_within_max_offset():
    crops = {
        "near": Crop(size=(6, 6, 6), anchor="middle", max_offset=0.25),
        "middle": Crop(size=(12, 16, 20)),
        "same": Crop(size=(12, 16, 20), anchor="middle"),
    }
    plan = BatchPlan([scan("s")], crops, batch_size=1, seed=3)
    for n in range(100):
        matrices = plan.sample(n).crops
        centre = {name: m @ np.append((np.array(crops[name].size) - 1) / 2, 1) for name, m in matrices.items()}
        assert (np.abs(centre["near"] - centre["middle"]) <= 0.25 * np.array([12, 16, 20]) + 0.5).all()
        assert np.array_equal(matrices["same"], matrices["middle"])


@pytest.mark.parametrize("anchor", ["nobody", "b"])
def test_plan_rejects_unknown_anchor(anchor):
    crops = {"a": Crop(size=(4, 4, 4), anchor=anchor), "b": Crop(size=(4, 4, 4), anchor="a")}
    with pytest.raises(ConfigError, match="anchors of crops do not exist or refer to each other"):
        BatchPlan([scan("s")], crops, batch_size=1, seed=0)


def test_plan_rejects_empty_scans():
    with pytest.raises(DataError, match="no scan matches"):
        BatchPlan([], {"a": MOVED}, batch_size=1, seed=0)


def test_crop_settings_do_not_shift_other_draws():
    """Changing one setting of a crop leaves the numbers drawn for the others."""
    plain, zoomed = (
        BatchPlan([scan("s")], {"a": Crop(size=(8, 8, 8), flip=(0.5, 0.5, 0.5), zoom=z)}, batch_size=1, seed=3)
        for z in ((1.0, 1.0), (0.7, 1.4))
    )
    for n in range(20):
        signs = [np.sign(np.diag(p.sample(n).crops["a"][:, :3])).tolist() for p in (plain, zoomed)]
        assert signs[0] == signs[1]
