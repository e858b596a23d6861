import numpy as np
import pytest
import torch

from medssl.errors import PluginError
from medssl.randomness import SampleRandom
from medssl.views.adapter import PerSample


@pytest.fixture(scope="module")
def monai():
    import monai.transforms

    return monai.transforms


def random(*numbers: int) -> SampleRandom:
    return SampleRandom(7, numbers, torch.device("cpu"))


@pytest.fixture
def images():
    return torch.rand(3, 1, 9, 10, 11, generator=torch.Generator().manual_seed(0))


def chain(monai):
    return monai.Compose(
        [monai.RandFlip(0.5), monai.RandGaussianNoise(1.0), monai.RandCoarseDropout(4, 3, fill_value=0.0, prob=1.0)]
    )


def test_per_sample_is_independent_of_batch_and_history(monai, images):
    per_sample = PerSample(chain(monai))
    together = per_sample(images, random(4, 5, 6), "view")
    alone = per_sample(images[1:2], random(5), "view")
    assert torch.equal(together[1], alone[0])
    assert torch.equal(per_sample(images, random(4, 5, 6), "view"), together)
    assert not torch.equal(per_sample(images, random(4, 5, 6), "other view"), together)


def test_per_sample_samples_differ(monai):
    out = PerSample(monai.RandGaussianNoise(1.0))(torch.zeros(2, 1, 4, 4, 4), random(0, 1), "view")
    assert not torch.equal(out[0], out[1])


def test_per_sample_protects_its_input(monai, images):
    before = images.clone()
    out = PerSample(chain(monai))(images, random(0, 1, 2), "view")
    assert torch.equal(images, before)
    assert (out == 0).any()


def test_per_sample_returns_plain_tensor(monai, images):
    out = PerSample(monai.RandAffine(prob=1.0, rotate_range=0.3))(images, random(0, 1, 2), "view")
    assert type(out) is torch.Tensor


def test_per_sample_matches_monai(monai, images):
    transform = monai.ScaleIntensityRange(0.2, 0.8, 0.0, 1.0, clip=True)
    out = PerSample(transform)(images, random(0, 1, 2), "view")
    assert np.allclose(out.numpy(), np.clip((images.numpy() - 0.2) / 0.6, 0, 1), atol=1e-6)


def test_per_sample_rejects_different_shapes(monai, images):
    with pytest.raises(PluginError, match="RandSpatialCrop made samples of different shapes"):
        PerSample(monai.RandSpatialCrop((2, 2, 2), random_size=True))(images, random(0, 1, 2), "view")


def test_per_sample_takes_any_callable(images):
    assert torch.equal(PerSample(lambda x: x + 1)(images, random(0, 1, 2), "view"), images + 1)
