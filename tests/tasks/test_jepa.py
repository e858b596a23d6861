"""jepa: what is hidden, what is predicted, and how it is scored."""

import pytest
import torch
from joint_world import make, region, store_phantoms

from medssl.randomness import SampleRandom
from medssl_tasks.jepa import feature_error, hidden_fraction, normalised, target_blocks, weighted_mean

CELLS = (6, 5, 7)


def random(count=64):
    return SampleRandom(0, range(count), torch.device("cpu"))


def test_targets_are_normalised_per_cell():
    """Targets have mean zero and biased variance one at every place."""
    target = normalised(5 + 3 * torch.randn(2, 32, 2, 3, 4).double())
    assert torch.allclose(target.mean(dim=1), torch.zeros(2, 2, 3, 4).double(), atol=1e-12)
    assert torch.allclose(target.var(dim=1, unbiased=False), torch.ones(2, 2, 3, 4).double(), atol=1e-4)


def test_prediction_of_zero_costs_one_half():
    """A prediction of zero costs one half where targets are plus or minus one."""
    target = torch.ones(1, 2, 2, 2, 2)
    target[:, 1] = -1
    assert torch.equal(feature_error(torch.zeros_like(target), target), torch.full((1, 1, 2, 2, 2), 0.5))


def test_weighted_mean_weighs_hidden_fraction():
    """The mean is over hidden places by their share."""
    error, share = torch.arange(8.0).view(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    share[0, 0, 0, 0, 1], share[0, 0, 1, 1, 1] = 1.0, 0.5
    assert weighted_mean(error, share).item() == pytest.approx((1 * 1.0 + 7 * 0.5) / 1.5)


def test_target_blocks_leave_a_quarter_visible():
    """Hidden cells are unions of boxes that leave a quarter to be seen."""
    hidden = target_blocks(random(), CELLS, blocks=4, volume=0.15)
    assert hidden.shape == (64, 1, *CELLS)
    share = hidden.flatten(1).float().mean(dim=1)
    assert share.min() > 0.1
    assert share.max() <= 0.75
    one = target_blocks(random(), CELLS, blocks=1, volume=0.15)
    for sample in one[:, 0]:
        place = sample.nonzero()
        low, high = place.min(dim=0).values, place.max(dim=0).values
        assert len(place) == int((high - low + 1).prod())  # a box, whole


def test_target_blocks_restore_cells_uniformly():
    """Where boxes hide too much cells are given back everywhere."""
    hidden = target_blocks(random(400), CELLS, blocks=32, volume=0.9)
    count = 6 * 5 * 7
    assert (hidden.flatten(1).sum(dim=1) == 3 * count // 4).all()
    rate = hidden.float().mean(dim=(0, 1))
    for axis in range(3):  # in raster order one end of the patch would be given back and the other never
        profile = rate.mean(dim=[other for other in range(3) if other != axis])
        assert (profile - 0.75).abs().max() < 0.06


def test_target_blocks_depend_on_sample_alone():
    whole = target_blocks(random(5), CELLS, blocks=4, volume=0.15)
    third = target_blocks(SampleRandom(0, [3], torch.device("cpu")), CELLS, blocks=4, volume=0.15)
    assert torch.equal(whole[3:4], third)


def test_hidden_fraction_averages_cells():
    hidden = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    hidden[..., :2, :2, :2] = True
    hidden[..., 2, 2, 2] = True
    share = hidden_fraction(hidden, torch.zeros(1, 9, 2, 2, 2))
    assert share[0, 0, 0, 0, 0] == 1.0
    assert share[0, 0, 1, 1, 1] == 0.125


@pytest.fixture
def views(tmp_path):
    task = make("jepa")
    return task, task.views(region(task, store_phantoms(tmp_path, 2)))


def test_encoder_does_not_see_hidden_voxels(views):
    task, given = views
    assert 0 < given["hidden"].float().mean() < 0.76
    other = given | {"patch": torch.where(given["hidden"], given["patch"] + 3.0, given["patch"])}
    assert torch.equal(task(given).embeddings, task(other).embeddings)
    assert not torch.equal(task(given).loss, task(other).loss)


def test_teacher_takes_no_gradient_and_is_exported(views):
    """The teacher takes no gradient and is what is exported."""
    task, given = views
    task(given).loss.backward()
    assert all(weight.grad is None for weight in task.teacher.parameters())
    assert task.exported_encoder() is task.teacher.module
