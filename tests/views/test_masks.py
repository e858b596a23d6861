import numpy as np
import pytest
import torch

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.views.masks import block_mask, token_mask

CPU = torch.device("cpu")


def random(*numbers: int) -> SampleRandom:
    return SampleRandom(3, numbers, CPU)


@pytest.mark.parametrize(
    ("shape", "block"), [((16, 24, 8), (8, 8, 8)), ((17, 20, 9), (8, 6, 4)), ((5, 5, 5), (8, 8, 8))]
)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.75, 1.0])
def test_block_mask_hides_exact_fraction(shape, block, ratio):
    mask = block_mask(random(0, 1, 2), "m", shape=shape, block=block, ratio=ratio)
    assert mask.shape == (3, 1, *shape)
    assert mask.dtype == torch.bool
    cells = [-(-s // b) for s, b in zip(shape, block, strict=True)]
    for sample in mask[:, 0].numpy():
        hidden = 0
        for cell in np.ndindex(*cells):
            part = sample[tuple(slice(c * b, (c + 1) * b) for c, b in zip(cell, block, strict=True))]
            assert part.all() or not part.any()
            hidden += bool(part.all())
        assert hidden == round(ratio * np.prod(cells))


def test_block_mask_is_independent_per_sample():
    many = block_mask(random(0, 1, 2), "m", shape=(16, 16, 16), block=(4, 4, 4), ratio=0.5)
    one = block_mask(random(1), "m", shape=(16, 16, 16), block=(4, 4, 4), ratio=0.5)
    assert torch.equal(many[1], one[0])
    assert not torch.equal(many[0], many[1])
    other = block_mask(random(1), "n", shape=(16, 16, 16), block=(4, 4, 4), ratio=0.5)
    assert not torch.equal(one, other)


def test_token_mask_is_uniform():
    counts = torch.stack([token_mask(random(n), "m", tokens=27, ratio=0.6)[0] for n in range(2000)]).float().mean(dim=0)
    assert counts.min() > 0.5
    assert counts.max() < 0.7


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_token_mask_rejects_ratio_outside_0_1(ratio):
    with pytest.raises(ConfigError, match="mask ratio"):
        token_mask(random(0), "m", tokens=8, ratio=ratio)
