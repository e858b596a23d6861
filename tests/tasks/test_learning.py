"""Tasks learn on phantoms: a small version of benchmarks/learning.py, which has them all."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def learning():
    """What the script defines."""
    sys.path.insert(0, str(BENCHMARKS))  # it imports its neighbour `machine`
    try:
        yield runpy.run_path(str(BENCHMARKS / "learning.py"))
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("name", ["masked-volume", "simclr"])
def test_short_training_beats_trivial_loss_and_random_encoder(learning, tmp_path, name):
    """A short training beats the trivial loss and the fresh encoder."""
    ((_, (run,)),) = learning["every_task"]([name], steps=60, seeds=1, folder=tmp_path)
    assert run.loss < 0.8 * run.trivial_loss
    assert run.after.dice > run.before.dice + 0.01
    assert run.is_clear


def test_phantom_tissues_have_equal_mean_intensity(learning):
    """Tissues of a phantom have one mean intensity on average and all are there."""
    import numpy as np

    means = []
    for seed in range(30):
        voxels, labels = learning["phantom"](np.random.default_rng(seed))
        assert set(np.unique(labels)) == set(range(learning["CLASSES"]))
        means.append([voxels[labels == label].mean() / voxels[labels == 1].mean() for label in (2, 3, 4)])
    assert np.ptp(np.mean(means, axis=0)) < 0.1
