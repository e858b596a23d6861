import pytest
import torch
from pydantic import ValidationError
from small_world import SHAPE, SmallEncoder, SmallRegion, phantoms

from medssl.randomness import SampleRandom
from medssl_tasks.denoising import Denoising, expected_square, grainy_noise


def noise(grain, shape=(32, 36, 40)):
    return grainy_noise(
        SampleRandom(0, range(2), torch.device("cpu")), "n", like=torch.zeros(2, 1, *shape), grain=grain
    )


@pytest.mark.parametrize("grain", [1, 3, 4])
def test_noise_is_standardised_per_sample(grain):
    """Noise has mean zero and variance one in every sample."""
    drawn = noise(grain)
    assert drawn.shape == (2, 1, 32, 36, 40)
    assert drawn.mean(dim=(1, 2, 3, 4)).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    assert drawn.square().mean(dim=(1, 2, 3, 4)).tolist() == pytest.approx([1.0, 1.0], rel=1e-4)


def test_grains_correlate_and_white_noise_does_not():
    """Grains hang together over their size and white noise does not."""

    def neighbours(drawn, distance):
        return (drawn[..., distance:] * drawn[..., :-distance]).mean().item()

    assert abs(neighbours(noise(1), 1)) < 0.02
    assert neighbours(noise(4), 1) > 0.8
    assert abs(neighbours(noise(4), 10)) < 0.1


@pytest.mark.parametrize(("low", "high", "expected"), [(1.0, 1.0, 1.0), (0.0, 1.0, 1 / 3), (0.3, 1.0, 0.46333333)])
def test_trivial_loss_is_mean_square_of_sigma(low, high, expected):
    """The trivial loss is the mean square of an evenly drawn sigma."""
    assert expected_square(low, high) == pytest.approx(expected)


def test_returning_noisy_patch_costs_trivial_loss():
    subject = Denoising(SmallEncoder(), Denoising.Config(sigma=(0.7, 0.7)))
    views = subject.views(SmallRegion(phantoms(4)))
    subject.decoder.forward = lambda pyramid, image: image
    step = subject(views)
    assert step.trivial_loss == pytest.approx(0.49)
    assert step.loss.item() == pytest.approx(0.49, rel=1e-4)
    assert step.terms["noise"].item() == pytest.approx(0.49, rel=1e-4)


def test_target_is_clean_and_padding_not_scored():
    """The target is the clean patch and what lies beyond the scan is not scored."""
    volume = phantoms()
    valid = torch.ones_like(volume, dtype=torch.bool)
    valid[..., 12:] = False
    subject = Denoising(SmallEncoder(), Denoising.Config())
    views = subject.views(SmallRegion(volume, valid=valid))
    assert torch.equal(views["target"], volume)
    subject.decoder.forward = lambda pyramid, image: torch.where(valid, volume, 1e3)
    assert subject(views).loss.item() == 0.0


def test_encoder_and_decoder_are_exported():
    subject = Denoising(SmallEncoder(), Denoising.Config())
    assert subject.exported_decoder() is subject.decoder
    assert subject.crops(SHAPE)["patch"].size == SHAPE


@pytest.mark.parametrize("settings", [{"sigma": (1.0, 0.5)}, {"sigma": (0.0, 0.0)}, {"grain": 0}, {"noise": 1.0}])
def test_invalid_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        Denoising.Config(**settings)
