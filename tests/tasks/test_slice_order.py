from math import log

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_world import SHAPE, SmallEncoder, SmallRegion, phantoms
from torch.nn import functional as F

import medssl_tasks.slice_order as module
from medssl.pretext.tiles import cut_tiles
from medssl_tasks.slice_order import SliceOrder, order_energy, slab_depth


def task(**settings):
    torch.manual_seed(0)
    return SliceOrder(SmallEncoder(), SliceOrder.Config(**settings))


def test_order_energy_of_equal_and_rising_scores():
    """Equal scores cost the logarithm of two and rising ones nothing."""
    assert order_energy(torch.zeros(2, 5)).tolist() == pytest.approx([log(2)] * 2)
    assert order_energy(torch.tensor([[0.0, 50.0, 100.0]])).item() == pytest.approx(0.0, abs=1e-7)
    assert order_energy(torch.tensor([[40.0, 0.0]], dtype=torch.float64)).item() == pytest.approx(40.0)


def test_order_energy_matches_naive_loop_and_gradcheck():
    """The energy is the mean over all pairs and right in its gradient."""
    scores = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    loop = [
        np.mean([F.softplus(row[i] - row[j]).item() for i in range(4) for j in range(i + 1, 4)])
        for row in scores.detach()
    ]
    assert order_energy(scores).tolist() == pytest.approx(loop)
    assert torch.autograd.gradcheck(order_energy, scores)


def test_order_energy_depends_on_score_differences():
    scores = torch.randn(2, 4, dtype=torch.float64)
    assert torch.allclose(order_energy(scores), order_energy(scores + 7.0))


def test_slabs_are_ordered_with_random_gaps(monkeypatch):
    """Slabs come from the lowest to the highest with a gap that varies."""
    subject = task()
    (crop,) = subject.crops(SHAPE).values()
    assert crop.size == (24, 20, 24)  # four slabs of 4 voxels with 2 to spare
    monkeypatch.setattr(module, "normalised_tiles", lambda tiles: tiles)
    heights = torch.arange(24.0).view(1, 1, 24, 1, 1).expand(1, 1, *crop.size)
    firsts = set()
    for number in range(20):
        slabs = subject.views(SmallRegion(heights, first=number))["slabs"]
        assert slabs.shape == (1, 4, 1, 4, 20, 24)
        first = slabs[0, :, 0, 0, 0, 0]
        assert (first.diff() >= 4).all()  # no slice in two slabs
        firsts.add(tuple(first.tolist()))
    assert len(firsts) > 10


def test_slab_depth_fits_encoder():
    """A slab is a fraction of the patch that the encoder can take."""
    assert slab_depth((64, 32, 32), (8, 8, 8), slabs=4) == 16
    assert slab_depth((32, 32, 32), (16, 16, 16), slabs=4) == 16
    assert slab_depth((20, 64, 64), (1, 16, 16), slabs=4) == 5


@pytest.mark.parametrize("gap", ["auto", 0, 5])
@pytest.mark.parametrize("depth", [16, 32, 40, 64])
def test_views_recover_slab_depth_from_crop(gap, depth):
    """Views find the slab again in the crop that was asked for."""
    subject = task(gap=gap)
    (crop,) = subject.crops((depth, 8, 8)).values()
    slabs = subject.views(SmallRegion(torch.randn(1, 1, *crop.size)))["slabs"]
    assert slabs.shape[3] == slab_depth((depth, 8, 8), (4, 4, 4), slabs=4)


def test_prediction_picture_orders_slabs_by_score():
    subject = task()
    (crop,) = subject.crops(SHAPE).values()
    views = subject.views(SmallRegion(phantoms(1, crop.size)))
    subject.head.forward = lambda pyramid: torch.tensor([[3.0], [1.0], [2.0], [0.0]])
    prediction = subject(views).pictures["prediction"]
    shown = cut_tiles(prediction, grid=(4, 1, 1), tile=(4, 20, 24))
    assert torch.equal(shown, views["slabs"][:, [3, 1, 2, 0]])
    assert subject(views).terms["pairs_in_order"].item() == pytest.approx(1 / 6)


def test_mirroring_body_axis_is_refused():
    """Mirroring the body axis is refused because it turns the order round."""
    with pytest.raises(ValidationError, match="mirroring D"):
        SliceOrder.Config(geometry={"flip": (0.5, 0.0, 0.0)})
    assert SliceOrder.Config().geometry.flip == (0.0, 0.0, 0.5)
