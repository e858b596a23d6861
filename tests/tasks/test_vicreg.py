"""The loss of vicreg against closed forms and a naive loop."""

import pytest
import torch
from joint_world import CASES
from small_world import SmallEncoder

from medssl_tasks.vicreg import redundancy, shortfall

# zero-mean orthogonal columns: 4 samples of 3 features; unbiased variance 4/3
H = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)


def step(a, b):
    cls, _ = CASES["vicreg"]
    return cls(SmallEncoder(), cls.Config(features=8, hidden=8)).double().compare({"a": a, "b": b})


def test_orthogonal_agreeing_features_cost_nothing():
    """Orthogonal features of enough spread that agree cost nothing."""
    assert step(H, H).loss.item() == pytest.approx(0.0, abs=1e-12)


def test_constant_features_cost_trivial_loss():
    constant = torch.ones(4, 3, dtype=torch.float64)
    collapsed = step(constant, constant)
    assert collapsed.loss.item() == pytest.approx(24.75, abs=1e-9)
    assert collapsed.trivial_loss == pytest.approx(24.75)


def test_shift_of_one_costs_invariance_weight():
    """A shift of one costs the weight of invariance."""
    assert step(H, H + 1).loss.item() == pytest.approx(25.0, abs=1e-9)


@pytest.mark.parametrize(("columns", "expected"), [(2, 32 / 9), (3, 64 / 9)])
def test_equal_columns_cost_their_covariances(columns, expected):
    same = H[:, :1].expand(-1, columns)
    assert step(same, same).loss.item() == pytest.approx(expected, abs=1e-9)


def test_variance_and_covariance_match_naive_loop():
    """Variance and covariance are those of a naive loop."""
    z = 0.5 * torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hinge = [max(0.0, 1 - (float(z[:, j].var(unbiased=True)) + 1e-4) ** 0.5) for j in range(4)]
    assert shortfall(z).item() == pytest.approx(sum(hinge) / 4, abs=1e-12)
    covariance = torch.cov(z.T)
    squares = sum(float(covariance[i, j]) ** 2 for i in range(4) for j in range(4) if i != j)
    assert redundancy(z).item() == pytest.approx(squares / 4, abs=1e-12)


def test_gradient_matches_finite_differences():
    z = 0.5 * torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda x: shortfall(x) + redundancy(x), z.requires_grad_())
