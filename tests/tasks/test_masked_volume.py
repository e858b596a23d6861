import pytest
import torch
from pydantic import ValidationError
from small_world import SHAPE, SmallEncoder, SmallRegion, phantoms, trained

from medssl.pretext.hidden_blocks import block_edges
from medssl.pretext.reconstruction import block_moments, informative, scored_mean
from medssl_tasks.masked_volume import MaskedVolume


def task(**settings):
    torch.manual_seed(0)
    return MaskedVolume(SmallEncoder(), MaskedVolume.Config(**settings))


def test_loss_is_mean_square_over_scored_voxels():
    """The loss is the mean square over hidden voxels inside the scan that are no air."""
    valid = torch.ones(2, 1, *SHAPE, dtype=torch.bool)
    valid[:, :, :, :, 20:] = False
    subject = task(block=4)
    views = subject.views(SmallRegion(phantoms(), valid=valid))
    step = subject(views)
    seen = views["target"].masked_fill(views["hidden"], 0.0)
    prediction = subject.decoder(subject.encoder(seen), seen).detach()
    expected = []
    for b in range(2):
        total, count = 0.0, 0
        for d, h, w in (views["hidden"][b, 0] & valid[b, 0]).nonzero().tolist():
            box = tuple(slice(i // 4 * 4, i // 4 * 4 + 4) for i in (d, h, w))
            block = views["target"][b, 0][box]
            if block.std() >= 0.03:
                total += float((prediction[b, 0, d, h, w] - views["target"][b, 0, d, h, w]) ** 2)
                count += 1
        expected.append(total / count)
    assert step.energy.tolist() == pytest.approx(expected, rel=1e-4)
    assert float(step.loss.detach()) == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_hidden_voxels_do_not_change_prediction():
    """What is hidden from the encoder cannot change the guess."""
    subject = task(block=4)
    views = subject.views(SmallRegion(phantoms()))
    other = dict(views, target=torch.where(views["hidden"], views["target"] + 5.0, views["target"]))
    embedded, other_embedded = subject(views).embeddings, subject(other).embeddings
    assert torch.equal(embedded, other_embedded)


def test_visible_voxels_get_no_gradient():
    subject = task(block=4, normalise=False)
    views = subject.views(SmallRegion(phantoms()))
    prediction = torch.zeros_like(views["target"], requires_grad=True)
    scored_mean((prediction - views["target"]).square(), views["scored"]).mean().backward()
    assert torch.count_nonzero(prediction.grad[~views["hidden"]]) == 0


def test_energy_of_perfect_and_mismatched_prediction():
    """A perfect prediction has no energy and another samples scan has more."""
    subject = task(block=4, ignore_air=0.0)
    views = subject.views(SmallRegion(phantoms()))
    subject.decoder.forward = lambda pyramid, image: views["target"]
    step = subject(views)
    assert step.energy.tolist() == [0.0, 0.0]
    assert (step.negative_energy > 0.1).all()


def test_mean_of_normalised_blocks_costs_trivial_loss():
    """Predicting the mean of normalised blocks costs the trivial value."""
    subject = task(block=8, normalise=True, ignore_air=0.0)
    volume = torch.randn(2, 1, 16, 24, 32)
    views = subject.views(SmallRegion(volume))
    subject.decoder.forward = lambda pyramid, image: torch.zeros_like(volume)
    step = subject(views)
    assert step.trivial_loss == pytest.approx(511 / 512)  # section 5 of the reference: n = 512 gives .998046
    assert float(step.loss) == pytest.approx(0.998046, abs=1e-5)
    assert float(step.terms["trivial_loss"]) == pytest.approx(0.998046, abs=1e-5)


def test_block_moments_match_naive_loop():
    """Block moments equal a loop over blocks also where the edge cuts them."""
    volume = torch.randn(2, 1, 7, 8, 9, dtype=torch.float64) + 100.0
    mean, variance = block_moments(volume, (4, 3, 2))
    for d in range(0, 7, 4):
        for h in range(0, 8, 3):
            for w in range(0, 9, 2):
                box = (slice(None), slice(None), slice(d, d + 4), slice(h, h + 3), slice(w, w + 2))
                block = volume[box].flatten(2)
                assert torch.allclose(mean[box].flatten(2), block.mean(-1, keepdim=True).expand_as(block))
                assert torch.allclose(variance[box].flatten(2), block.var(-1, keepdim=True).expand_as(block))


def test_informative_excludes_air_and_padding():
    """Air and padding are not scored and the body is."""
    volume = phantoms(shape=(16, 16, 16))
    scored = informative(volume, (4, 4, 4), floor=0.1)
    assert not scored[:, :, :4, :4, :4].any()
    assert scored[:, :, 4:12, 4:12, 4:12].all()


def test_patch_of_air_costs_nothing():
    """A patch of air alone costs nothing and stays finite."""
    step = task()(task().views(SmallRegion(torch.zeros(2, 1, *SHAPE))))
    assert step.loss.item() == 0.0
    step.loss.backward()


def test_auto_block_is_eighth_of_patch():
    """Automatic blocks are an eighth of each edge between 4 and 16."""
    assert block_edges("auto", (160, 96, 40)) == (16, 8, 4)
    assert block_edges(16, (8, 40, 40)) == (4, 16, 16)


def test_thirty_steps_beat_trivial_loss():
    """Thirty steps on one batch end well below the trivial loss."""
    subject = task(block=4)
    views = subject.views(SmallRegion(phantoms()))
    losses = trained(subject, views, 30)
    assert losses[-1] < 0.4 * float(subject(views).terms["trivial_loss"])


def test_loss_gradient_passes_gradcheck():
    """The gradient of the loss is right in double precision."""
    error = torch.rand(2, 1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    scored = torch.rand(2, 1, 3, 4, 5) > 0.5
    assert torch.autograd.gradcheck(lambda e: scored_mean(e.square(), scored), error)


def test_resumed_training_equals_uninterrupted():
    """Stopping and going on from the state equals not stopping."""
    views = task().views(SmallRegion(phantoms()))
    first = task()
    trained(first, views, 3)
    second = task()
    second.load_state_dict(first.state_dict())
    assert trained(first, views, 2) == trained(second, views, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "volume", [torch.zeros(2, 1, *SHAPE), phantoms()[:1].expand(2, -1, -1, -1, -1), 1e4 * phantoms()]
)
@pytest.mark.parametrize("normalise", [False, True])
def test_loss_and_gradient_are_finite_on_degenerate_input(volume, dtype, normalise):
    subject = task(normalise=normalise)
    views = subject.views(SmallRegion(volume))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
        step = subject(views)
    step.loss.backward()
    assert torch.isfinite(step.loss)
    assert all(torch.isfinite(p.grad).all() for p in subject.parameters())


def test_prediction_picture_keeps_visible_voxels():
    """Pictures are volumes without gradient and the prediction shows the scan where it was seen."""
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    pictures = subject(views).pictures
    assert list(pictures) == ["scan", "hidden", "prediction", "error"]
    assert all(p.shape == (2, 1, *SHAPE) and not p.requires_grad for p in pictures.values())
    assert torch.equal(pictures["prediction"][~views["hidden"]], views["target"][~views["hidden"]])


def test_trained_decoder_is_exported():
    """The decoder that reconstructed is the one that is exported."""
    subject = task()
    assert subject.exported_decoder() is subject.decoder


@pytest.mark.parametrize(
    "settings",
    [
        {"mask_ratio": 1.0},
        {"block": 1},
        {"blocks": 4},
        {"geometry": {"zoom": (0.0, 1.0)}},
        {"geometry": {"zoom": (1.2, 0.8)}},
    ],
)
def test_invalid_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        MaskedVolume.Config(**settings)
