import math

import pytest
import torch
from small_world import SmallEncoder, SmallRegion, phantoms
from torch.distributions import Normal, kl_divergence

from medssl_tasks.vae import VAE, kl_to_standard_normal

D = 12


def task(**settings):
    torch.manual_seed(0)
    return VAE(SmallEncoder(), VAE.Config(**settings))


@pytest.mark.parametrize(
    ("mean", "log_variance", "expected"), [(0.0, 0.0, 0.0), (1.0, 0.0, D / 2), (0.0, 1.0, D * (math.e - 2) / 2)]
)
def test_kl_has_closed_form_values(mean, log_variance, expected):
    shape = (2, D, 1, 1, 1)
    value = kl_to_standard_normal(
        torch.full(shape, mean, dtype=torch.float64), torch.full(shape, log_variance, dtype=torch.float64)
    )
    assert value.tolist() == pytest.approx([expected] * 2)


def test_kl_matches_torch_distributions():
    """The divergence equals that of torch distributions summed over the code."""
    mean, log_variance = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    theirs = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).flatten(1).sum(1)
    assert torch.allclose(kl_to_standard_normal(mean, log_variance), theirs, rtol=1e-5)


def test_kl_passes_gradcheck():
    """The gradient of the divergence is right in double precision."""
    numbers = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(kl_to_standard_normal, numbers)


def test_loss_is_reconstruction_plus_beta_kl():
    """The loss is the summed reconstruction plus beta times the summed divergence over the voxels."""
    subject = task(beta=3.0, noise=0.4)
    views = subject.views(SmallRegion(phantoms()))
    step = subject(views)
    mean, log_variance = subject.posterior(subject.encoder(views["target"])[-1]).chunk(2, dim=1)
    prediction = subject.decoder(mean + views["noise"] * (0.5 * log_variance).exp())
    voxels = prediction[0].numel()
    expected = [
        ((prediction[b] - views["target"][b]) ** 2).sum().item() / (2 * 0.4**2) / voxels
        + 3.0 * kl_to_standard_normal(mean, log_variance)[b].item() / voxels
        for b in range(2)
    ]
    assert step.energy.tolist() == pytest.approx(expected, rel=1e-4)


def test_decoder_sees_code_alone():
    """The reconstruction sees the image through the code alone."""
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    with torch.no_grad():
        subject.posterior.weight.zero_()
    prediction = subject(views).pictures["prediction"]
    other = subject(dict(views, target=views["target"].flip(0))).pictures["prediction"]
    assert torch.equal(prediction, other)


def test_uninformative_code_costs_trivial_loss():
    """A code that says nothing has no active unit and costs the trivial loss."""
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    with torch.no_grad():
        subject.posterior.weight.zero_()
        subject.posterior.bias.zero_()
    subject.decoder.forward = lambda code: torch.zeros_like(views["target"])
    step = subject(views)
    assert step.terms["kl"].item() == 0.0
    assert step.terms["active_units"].item() == 0.0
    assert step.loss.item() == pytest.approx(step.terms["trivial_loss"].item())
    assert step.terms["trivial_loss"].item() == pytest.approx(
        views["target"].square().mean().item() / (2 * 0.5**2), rel=1e-5
    )


def test_varying_code_has_active_units():
    subject = task()
    assert subject(subject.views(SmallRegion(phantoms()))).terms["active_units"].item() > 0.9


def test_evaluation_shows_samples_from_prior():
    """Patches dreamt from the prior are shown in evaluation."""
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    assert "dream" not in subject(views).pictures
    assert subject.eval()(views).pictures["dream"].shape == views["target"].shape


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_energies_are_comparable_for_any_channels(channels):
    """Right and wrong pairs are measured alike whatever the channels."""
    torch.manual_seed(0)
    subject = VAE(SmallEncoder(in_channels=channels), VAE.Config()).eval()
    volume = phantoms(2, (12, 16, 16))
    views = subject.views(SmallRegion(volume.expand(-1, channels, -1, -1, -1), valid=torch.ones_like(volume).bool()))
    nothing = subject(dict(views, target=torch.zeros_like(views["target"])))
    assert torch.allclose(nothing.energy, nothing.negative_energy, rtol=1e-5)  # all targets are the same
    subject.decoder.forward = lambda code: views["target"]
    step = subject(views)
    other = (volume - volume.roll(1, dims=0)).square().mean(dim=(1, 2, 3, 4)) / (2 * 0.5**2)
    assert torch.allclose(step.negative_energy - step.energy, other, rtol=1e-4)
    assert step.terms["trivial_loss"].item() == pytest.approx(volume.square().mean().item() / (2 * 0.5**2), rel=1e-5)
    assert (step.energy < step.negative_energy).all()
