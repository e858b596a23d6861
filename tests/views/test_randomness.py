import numpy as np
import pytest
import torch
from scipy.stats import kstest

from medssl.randomness import SampleRandom, generator

CPU = torch.device("cpu")


def test_generator_depends_on_seed_number_and_name():
    first = generator(3, 5, "a").random(4)
    assert np.array_equal(first, generator(3, 5, "a").random(4))
    for other in (generator(4, 5, "a"), generator(3, 6, "a"), generator(3, 5, "b")):
        assert not np.array_equal(first, other.random(4))


def test_generator_separates_seed_and_number():
    assert generator(1, 23, "a").random() != generator(12, 3, "a").random()


@pytest.mark.parametrize("method", ["uniform", "normal", "permutations", "noise", "shares"])
def test_sample_random_is_independent_of_batch(method):

    def draw(*numbers: int):
        random = SampleRandom(1, numbers, CPU)
        calls = {
            "uniform": lambda: random.uniform("x", -1.0, 2.0, (3,)),
            "normal": lambda: random.normal("x", (3,)),
            "permutations": lambda: random.permutations("x", 9),
            "noise": lambda: random.noise("x", (2, 3)),
            "shares": lambda: torch.from_numpy(random.random("x", (3,))),
        }
        return calls[method]()

    assert torch.equal(draw(7, 8, 9)[1], draw(8)[0])
    assert torch.equal(draw(9, 7)[1], draw(7, 8)[0])
    assert not torch.equal(draw(7, 8)[0], draw(7, 8)[1])


def test_sample_random_neighbours_are_uncorrelated():
    values = SampleRandom(1, range(4000), CPU).uniform("x", 0.0, 1.0).numpy()
    assert kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06


def test_sample_random_noise_is_normal():
    assert kstest(SampleRandom(1, [3], CPU).noise("x", (4000,)).numpy()[0], "norm").pvalue > 1e-3


def test_sample_random_chance_has_its_probability():
    assert SampleRandom(1, range(4000), CPU).chance("x", 0.3).float().mean() == pytest.approx(0.3, abs=0.03)


def test_sample_random_of_selects_rows():
    random = SampleRandom(1, [4, 8, 15, 16], CPU)
    assert torch.equal(random.of([2, 0]).uniform("x", 0.0, 1.0), random.uniform("x", 0.0, 1.0)[[2, 0]])
