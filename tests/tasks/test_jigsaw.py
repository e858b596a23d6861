from math import log

import numpy as np
import pytest
import torch
from small_world import SHAPE, SmallEncoder, SmallRegion, phantoms

import medssl_tasks.jigsaw as module
from medssl.errors import ConfigError
from medssl.pretext.heads import class_energies
from medssl.pretext.tiles import cut_tiles, join_tiles, normalised_tiles, tile_edges
from medssl_tasks.jigsaw import Jigsaw, shuffle, unlike_orders, unshuffle


def task(**settings):
    torch.manual_seed(0)
    return Jigsaw(SmallEncoder(), Jigsaw.Config(**settings))


def views_of(subject, volume=None):
    size = subject.crops(SHAPE)["cube"].size
    return subject.views(SmallRegion(phantoms(2, size) if volume is None else volume(size)))


def test_permutations_are_distinct_and_far_apart():
    """Orders are distinct permutations that differ in many places."""
    orders = unlike_orders(8, 100, seed=0)
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(8), (100, 1)))
    assert len({tuple(order) for order in orders.tolist()}) == 100
    distance = (orders[:, None] != orders[None]).sum(axis=2) + 99 * np.eye(100, dtype=int)
    assert distance.min() >= 5  # among a hundred drawn at random two differ in two places only
    assert orders[0].tolist() == list(range(8))


def test_permutation_set_depends_on_seed_and_is_saved():
    """The set of orders depends on the seed alone and is saved."""
    assert np.array_equal(unlike_orders(8, 20, seed=3), unlike_orders(8, 20, seed=3))
    assert not np.array_equal(unlike_orders(8, 20, seed=3), unlike_orders(8, 20, seed=4))
    first, second = task(seed=3), task(seed=4)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.orders, first.orders)


def test_many_parts_have_distinct_permutations():
    """More parts than can be enumerated have distinct orders too."""
    orders = unlike_orders(27, 50, seed=0)
    assert len({tuple(order) for order in orders.tolist()}) == 50
    assert orders[0].tolist() == list(range(27))


def test_more_permutations_than_exist_are_refused():
    """All orders of few parts can be asked for and not one more."""
    assert len({tuple(order) for order in unlike_orders(3, 6, seed=0).tolist()}) == 6
    with pytest.raises(ConfigError, match="have 2 orders"):
        task(grid=(1, 1, 2), permutations=3)


def test_unshuffle_inverts_shuffle():
    """Shuffling and shuffling back gives the parts in place."""
    tiles = torch.arange(2 * 8).view(2, 8, 1, 1, 1, 1)
    orders = torch.from_numpy(unlike_orders(8, 5, seed=0))[[4, 2]]
    shuffled = shuffle(tiles, orders)
    assert shuffled[0].flatten().tolist() == orders[0].tolist()
    assert torch.equal(unshuffle(shuffled, orders), tiles)


def test_join_tiles_inverts_cut_tiles():
    volume = torch.randn(2, 1, 4, 6, 8)
    tiles = cut_tiles(volume, grid=(2, 3, 2), tile=(2, 2, 4))
    assert torch.equal(tiles[1, 7, 0], volume[1, 0, 2:4, 0:2, 4:8])
    assert torch.equal(join_tiles(tiles, grid=(2, 3, 2)), volume)


@pytest.mark.parametrize(("gap", "lowest", "highest"), [("auto", 1, 2), (8, 2, 6), (0, 0, 0)])
def test_parts_jitter_and_never_touch(monkeypatch, gap, lowest, highest):
    seen = []

    def spy(volume, **arguments):
        seen.append(arguments["offsets"])
        return cut_tiles(volume, **arguments)

    monkeypatch.setattr(module, "cut_tiles", spy)
    subject = task(gap=gap)
    (crop,) = subject.crops((16, 16, 24)).values()
    for number in range(20):
        subject.views(SmallRegion(phantoms(1, crop.size), first=number))
    along_width = np.concatenate(seen)[..., 2]  # parts of 12 voxels, cells of 15, 20 and 12
    assert along_width.min() == lowest
    assert along_width.max() == highest


def test_normalised_tiles_hide_intensity_drift():
    """A drift of brightness and contrast from part to part is invisible."""
    tiles = phantoms(16, (8, 8, 12)).unflatten(0, (2, 8))
    drifted = tiles * torch.rand(2, 8, 1, 1, 1, 1).add(0.5) + torch.randn(2, 8, 1, 1, 1, 1)
    assert torch.allclose(normalised_tiles(tiles), normalised_tiles(drifted), atol=1e-4)


def test_tile_of_air_stays_flat():
    noise = 1e-3 * torch.randn(1, 2, 1, 8, 8, 8)
    assert normalised_tiles(noise).abs().max() < 0.2


def test_parts_are_encoded_alone():
    subject = task()
    views = views_of(subject)
    tiles = views["tiles"].clone().requires_grad_()
    subject.orders[:] = torch.arange(8)
    pyramid = subject.encoder(tiles.flatten(0, 1))
    reached = torch.autograd.grad(pyramid[-1][3].sum(), tiles)[0].flatten(0, 1)
    assert reached[3].abs().max() > 0
    assert torch.count_nonzero(reached[[0, 1, 2, *range(4, 16)]]) == 0


def test_shuffling_features_equals_shuffling_parts():
    subject = task(permutations_per_patch=5).double()
    views = views_of(subject)
    views = {"tiles": views["tiles"].double(), "order": views["order"]}
    assert views["order"].shape == (2, 5)
    expected = []
    for sample in range(2):
        losses = []
        for order in views["order"][sample].tolist():
            shown = views["tiles"][sample][subject.orders[order]]  # (8, 1, d, h, w)
            logits = subject.head(subject.encoder(shown))
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor([order])).item())
        expected.append(sum(losses) / 5)
    assert subject(views).energy.tolist() == pytest.approx(expected, rel=1e-9)


def test_tile_has_several_voxels_at_deepest_level():
    """A part is half the patch but never one voxel at the deepest level."""
    assert tile_edges((64, 48, 32), (8, 8, 8)) == (32, 24, 16)
    assert tile_edges((32, 32, 32), (16, 16, 16)) == (32, 32, 32)
    assert tile_edges((20, 64, 64), (1, 16, 16), parts=(1, 2, 2)) == (20, 32, 32)


@pytest.mark.parametrize("gap", ["auto", 0, 3, 8])
@pytest.mark.parametrize("patch", [(32, 48, 64), (16, 20, 24), (40, 40, 40)])
def test_views_recover_tile_from_crop(gap, patch):
    """Views find the part again in the crop that was asked for."""
    subject = task(gap=gap)
    (crop,) = subject.crops(patch).values()
    tiles = subject.views(SmallRegion(torch.randn(1, 1, *crop.size)))["tiles"]
    assert tuple(tiles.shape[3:]) == tile_edges(patch, (4, 4, 4))


def test_uniform_prediction_costs_log_of_permutations():
    """Guessing costs the logarithm of the number of orders."""
    right, wrong = class_energies(torch.zeros(2, 100), torch.tensor([3, 99]))
    assert right.tolist() == pytest.approx([log(100)] * 2)
    assert wrong.tolist() == pytest.approx([log(100)] * 2)
    assert task()(views_of(task())).trivial_loss == pytest.approx(log(100))


def test_class_energies_of_confident_answers():
    """A sure right answer costs nothing and a sure wrong one its logit."""
    logits = torch.tensor([[20.0, 0.0, 0.0]], dtype=torch.float64)
    right, wrong = class_energies(logits, torch.tensor([0]))
    assert right.item() == pytest.approx(0.0, abs=1e-7)
    assert wrong.item() == pytest.approx(20.0, abs=1e-7)
    assert class_energies(logits, torch.tensor([1]))[0].item() == pytest.approx(20.0, abs=1e-7)
