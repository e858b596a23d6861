import pytest
import torch
from pydantic import ValidationError
from small_world import SHAPE, SmallEncoder, SmallRegion, phantoms

from medssl_tasks.patch_context import PatchContext, neighbour_positions


def task(**settings):
    torch.manual_seed(0)
    return PatchContext(SmallEncoder(), PatchContext.Config(**settings))


def views_of(subject):
    return subject.views(SmallRegion(phantoms(2, subject.crops(SHAPE)["surroundings"].size)))


def test_neighbours_share_face_edge_or_corner():
    """Six neighbours fraction a face eighteen an edge and all others a corner."""
    assert neighbour_positions(6) == (4, 10, 12, 14, 16, 22)
    assert len(neighbour_positions(18)) == 18
    assert set(neighbour_positions(18)).isdisjoint({0, 2, 6, 8, 18, 20, 24, 26, 13})
    assert neighbour_positions(26) == tuple(place for place in range(27) if place != 13)


def test_surroundings_are_three_half_patches_wide():
    """A tile is half the patch and the surroundings are three tiles wide."""
    assert task().crops((32, 48, 64))["surroundings"].size == (48, 72, 96)
    assert task().crops((8, 8, 8))["surroundings"].size == (
        24,
        24,
        24,
    )  # twice the divisor of 4, or one cell would be left


def test_tiles_around_middle_are_in_order():
    """The tiles are those around the middle in their order."""
    subject = task(neighbours=26)
    views = views_of(subject)
    d, h, w = views["middle"].shape[2:]
    places = [(i, j, k) for i in range(3) for j in range(3) for k in range(3) if (i, j, k) != (1, 1, 1)]
    for row, (i, j, k) in enumerate(places):
        box = views["scan"][:, :, i * d : (i + 1) * d, j * h : (j + 1) * h, k * w : (k + 1) * w]
        assert torch.equal(views["around"][:, row], box)
    assert torch.equal(views["middle"], views["scan"][:, :, d : 2 * d, h : 2 * h, w : 2 * w])


def test_prediction_depends_on_every_tile_but_middle():
    """The prediction knows nothing of the middle and something of each tile around."""
    subject = task()
    views = views_of(subject)
    around = views["around"].clone().requires_grad_()
    middle = views["middle"].clone().requires_grad_()
    captured = []
    subject.predictor.register_forward_hook(lambda module, inputs, output: captured.append(output))
    subject(dict(views, around=around, middle=middle))
    reached = torch.autograd.grad(captured[0].square().sum(), [around, middle], allow_unused=True)
    assert reached[1] is None
    assert (reached[0].abs().amax(dim=(0, 2, 3, 4, 5)) > 0).all()


def test_cells_are_resolved_into_subcells():
    """Each cell is resolved into sub cells in the order of the axes."""
    subject = task()
    assert subject.detail == (4, 4, 4)
    numbers = torch.arange(64.0).view(1, 64, 1, 1, 1)
    subject.predictor = torch.nn.Module()
    subject.predictor.forward = lambda layout: numbers.expand(len(layout), -1, *layout.shape[2:])
    prediction = subject._predict(torch.zeros(1, 6, 24, 2, 2, 3))
    assert prediction.shape == (1, 1, 8, 8, 12)
    for d, h, w in ((0, 0, 0), (1, 2, 3), (5, 4, 10)):
        assert prediction[0, 0, d, h, w].item() == (d % 4) * 16 + (h % 4) * 4 + w % 4


def test_perfect_prediction_and_mean_prediction():
    """A perfect prediction costs nothing and the mean costs the trivial loss."""
    subject = task()
    views = views_of(subject)
    subject._predict = lambda features: views["middle"]
    assert subject(views).loss.item() == 0.0
    subject._predict = lambda features: torch.zeros_like(views["middle"])
    step = subject(views)
    assert step.loss.item() == pytest.approx(step.terms["trivial_loss"].item())
    assert step.loss.item() == pytest.approx(views["middle"].square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("settings", [{"neighbours": 8}, {"width": 1}])
def test_invalid_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        PatchContext.Config(**settings)
