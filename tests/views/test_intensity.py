import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.stats import norm

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.views import intensity
from medssl.views.contrast import gamma, scale_and_shift, stretch_contrast
from medssl.views.filters import blur, low_resolution
from medssl.views.intensity import IntensityChain

CPU = torch.device("cpu")
STRONG = 2.0


def images(batch: int = 6, shape=(9, 12, 11), channels: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, *shape, generator=torch.Generator().manual_seed(0))


def random(numbers=range(6), seed=3) -> SampleRandom:
    return SampleRandom(seed, list(numbers), CPU)


def everything_happens(monkeypatch) -> None:
    for name in vars(intensity).copy():
        if name.endswith("_CHANCE"):
            monkeypatch.setattr(intensity, name, 1.0)


def test_batch_equals_single_samples(monkeypatch):
    everything_happens(monkeypatch)
    x = images()
    together = IntensityChain(STRONG)(x, random(), "view")
    for row in range(6):
        alone = IntensityChain(STRONG)(x[row : row + 1], random([row]), "view")
        assert torch.allclose(together[row], alone[0], atol=1e-5)


def test_chain_parameters_differ_by_sample_and_view():
    x = images(1).expand(6, -1, -1, -1, -1)
    a, b = (IntensityChain()(x, random(), view) for view in "ab")
    assert not torch.equal(a, b)
    assert len({float(v.sum()) for v in a}) > 1


def test_chain_does_not_write_to_input(monkeypatch):
    everything_happens(monkeypatch)
    x = images()
    before = x.clone()
    out = IntensityChain()(x, random(), "view")
    assert torch.equal(x, before)
    assert out.data_ptr() != x.data_ptr()
    assert IntensityChain(0.0)(x, random(), "view").data_ptr() != x.data_ptr()


def test_chain_change_grows_with_strength(monkeypatch):
    everything_happens(monkeypatch)
    x = images()
    change = [(IntensityChain(s)(x, random(), "view") - x).abs().mean().item() for s in (0.0, 0.5, 1.0, 2.0)]
    assert change[0] == 0.0
    assert change == sorted(change)


def test_chain_steps_have_their_probability():
    x = images(1, (2, 2, 2)).expand(3000, -1, -1, -1, -1)
    changed = (IntensityChain()(x, random(range(3000)), "view") != x).flatten(1).any(dim=1).float().mean()
    untouched = np.prod([1 - v for n, v in vars(intensity).items() if n.endswith("_CHANCE")])
    # A low-resolution zoom near one leaves a 2-voxel edge as it is.
    assert float(changed) == pytest.approx(1 - untouched, abs=0.06)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_chain_half_precision_is_finite_and_close(monkeypatch, dtype):
    everything_happens(monkeypatch)
    x = images() * 3
    out = IntensityChain()(x.to(dtype), random(), "view")
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    reference = IntensityChain()(x.to(dtype).float(), random(), "view")
    assert (out.float() - reference).abs().mean() < 0.02


@pytest.mark.parametrize("value", [-0.1, 5.0])
def test_chain_rejects_strength_out_of_range(value):
    with pytest.raises(ConfigError, match="strength"):
        IntensityChain(value)


def test_scale_and_shift_is_the_formula():
    x, factor, shift = images(), torch.rand(6) + 0.5, torch.randn(6)
    expected = np.stack([x[i].numpy() * factor[i].item() + shift[i].item() for i in range(6)])
    assert np.allclose(scale_and_shift(x, factor, shift).numpy(), expected, atol=1e-6)


def test_contrast_stretches_around_mean_within_range():
    x = images(2)
    out = stretch_contrast(x, torch.tensor([0.5, 3.0]))
    assert torch.allclose(out[0], (x[0] - x[0].mean()) * 0.5 + x[0].mean(), atol=1e-5)
    assert out[1].max() == x[1].max()
    assert out[1].min() == x[1].min()


@pytest.mark.parametrize("invert", [False, True])
def test_gamma_keeps_range(invert):
    x, exponent = images(2, channels=2), torch.tensor([0.5, 2.0])
    out = gamma(x, exponent, invert=invert)
    for b in range(2):
        v = -x[b].double().numpy() if invert else x[b].double().numpy()
        low, high = v.min(), v.max()
        expected = ((v - low) / (high - low)) ** exponent[b].item() * (high - low) + low
        assert np.allclose(out[b].numpy(), -expected if invert else expected, atol=1e-5)


def test_gamma_of_constant_image_is_identity():
    flat = torch.full((2, 1, 4, 4, 4), 0.7)
    assert torch.allclose(gamma(flat, torch.tensor([0.5, 2.0])), flat)


def test_blur_is_gaussian_per_sample_and_axis():
    x = images(2, (14, 12, 17))
    sigma = torch.tensor([[0.5, 1.0, 1.5], [1.2, 0.3, 0.9]])
    out = blur(x, sigma)
    for row in range(2):
        expected = x[row, 0].double().numpy()
        for axis in range(3):
            s = sigma[row, axis].item()
            reach = int(max(4.0 * s, 0.5) + 0.5)
            t = np.arange(-reach, reach + 1)
            kernel = norm.cdf(t + 0.5, scale=s) - norm.cdf(t - 0.5, scale=s)
            expected = correlate1d(expected, kernel, axis=axis, mode="constant")
        assert np.allclose(out[row, 0].numpy(), expected, atol=1e-5)


def test_blur_of_zero_width_is_identity():
    x = images(2)
    assert torch.allclose(blur(x, torch.zeros(2, 3)), x, atol=1e-6)


def test_low_resolution_keeps_size_and_loses_detail():
    x = images(2, (20, 24, 16))
    out = low_resolution(x, [0.5, 1.0])
    assert out.shape == x.shape
    assert torch.equal(out[1], x[1])
    assert out[0].diff(dim=3).abs().mean() < 0.7 * x[0].diff(dim=3).abs().mean()


def test_low_resolution_does_not_shift_image():
    ramp = torch.arange(24.0).expand(1, 1, 4, 4, 24).contiguous()
    out = low_resolution(ramp, [0.5])
    assert (out - ramp)[..., 4:-4].abs().max() <= 0.51  # MONAI's floor sampling is off by up to one and a half voxels
    assert (out - ramp)[..., 4:-4].mean().abs() <= 0.51
