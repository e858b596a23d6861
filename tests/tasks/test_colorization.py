import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_world import SmallEncoder, SmallRegion, phantoms

from medssl_tasks.colorization import Colorization, bend, clip, quantise, rarity


def task(**settings):
    torch.manual_seed(0)
    return Colorization(SmallEncoder(), Colorization.Config(**settings))


def test_quantise_leaves_even_levels():
    """Quantising leaves so many even levels from low to high."""
    images = torch.linspace(-1.0, 3.0, 401).view(1, 1, 1, 1, -1)
    out = quantise(images, torch.tensor([-1.0]), torch.tensor([3.0]), levels=5)
    assert out.unique().tolist() == pytest.approx([-1.0, 0.0, 1.0, 2.0, 3.0])
    assert (out - images).abs().max().item() == pytest.approx(0.5, abs=1e-6)


def test_clip_flattens_outside_window_per_sample():
    """A window keeps what is inside and flattens what is outside per sample."""
    images = torch.tensor([-2.0, 0.0, 2.0]).view(1, 1, 1, 1, 3).repeat(2, 1, 1, 1, 1)
    out = clip(images, torch.tensor([-1.0, -9.0]), torch.tensor([1.0, 0.5]))
    assert out.flatten().tolist() == [-1.0, 0.0, 1.0, -2.0, 0.0, 0.5]


def test_bend_keeps_range_and_is_invertible():
    """A curve keeps range and order and can be undone."""
    images = torch.randn(2, 1, 4, 5, 6, dtype=torch.float64)
    exponent = torch.tensor([0.5, 2.0], dtype=torch.float64)
    bent = bend(images, exponent)
    assert torch.equal(bent.flatten(1).argsort(dim=1), images.flatten(1).argsort(dim=1))
    assert torch.allclose(bent.amax(dim=(1, 2, 3, 4)), images.amax(dim=(1, 2, 3, 4)))
    assert torch.allclose(bend(bent, 1 / exponent), images, atol=1e-9)
    assert not torch.allclose(bent, images, atol=0.1)


def test_rarity_matches_histogram():
    images = torch.rand(1, 1, 8, 9, 10, dtype=torch.float64) ** 3
    chosen = torch.rand(1, 1, 8, 9, 10) > 0.3
    weight = rarity(images, chosen)[chosen].numpy()
    values = images[chosen].numpy()
    count, edges = np.histogram(values, bins=16, range=(images.min().item(), images.max().item()))
    share = count / count.sum()
    expected = (1 / (0.5 * share + 0.5 / 16))[np.clip(np.digitize(values, edges) - 1, 0, 15)]
    assert weight == pytest.approx(expected / expected.mean(), rel=1e-9)
    assert weight.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("reduction", ["window", "bits", "curve", "window+bits"])
def test_changed_voxels_inside_scan_are_scored(reduction):
    """Only voxels that were changed inside the scan are scored."""
    volume = phantoms()
    valid = torch.ones_like(volume, dtype=torch.bool)
    valid[..., 12:] = False
    views = task(reduction=reduction).views(SmallRegion(volume, valid=valid))
    scored = views["weight"] > 0
    assert torch.equal(views["target"], volume)
    assert not scored[~valid].any()
    assert ((views["reduced"] - volume).abs()[scored] > 1e-4).all()
    assert ((views["reduced"] - volume).abs()[valid & ~scored] <= 1e-4).all()
    assert scored.float().mean() > 0.1


def test_bits_limit_grey_levels():
    views = task(bits=2).views(SmallRegion(phantoms()))
    for reduced in views["reduced"]:
        assert len(reduced.unique()) <= 4


def test_returning_reduced_patch_costs_trivial_loss():
    """Giving back the reduced patch costs the trivial loss."""
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    subject.decoder.forward = lambda pyramid, image: image
    step = subject(views)
    assert step.loss.item() == pytest.approx(step.terms["trivial_loss"].item())
    subject.decoder.forward = lambda pyramid, image: views["target"]
    assert subject(views).loss.item() == 0.0


def test_decoder_is_exported():
    subject = task()
    assert subject.exported_decoder() is subject.decoder


@pytest.mark.parametrize("settings", [{"window": (2.0, 1.0)}, {"bits": 0}, {"bend": 1.0}, {"reduction": "blur"}])
def test_invalid_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        Colorization.Config(**settings)
