"""The loss of barlow-twins against closed forms and a naive loop."""

import pytest
import torch
from joint_world import make

from medssl_tasks.barlow_twins import barlow_terms, standardised

# zero-mean orthogonal columns: 4 samples of 3 features
H = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)


def loss(a, b, weight):
    agreement, redundancy = barlow_terms(standardised(a), standardised(b))
    return float(agreement + weight * redundancy)


def test_orthogonal_agreeing_features_cost_nothing():
    assert loss(H, H, 0.005) < 1e-9  # with the unbiased variance it would be D / N^2 = 0.1875


def test_opposite_features_cost_four_each():
    assert loss(H, -H, 0.005) == pytest.approx(12.0, abs=1e-3)


def test_equal_columns_cost_off_diagonal_weight():
    same = H[:, :1].expand(-1, 3)
    assert loss(same, same, 0.005) == pytest.approx(0.005 * 3 * 2, abs=1e-5)


def test_scale_and_shift_of_features_cancel():
    """Scale and shift of a view do not matter."""
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert loss(x, 2 * x + 4, 0.005) == pytest.approx(loss(x, x, 0.005), abs=1e-4)


def test_constant_features_cost_trivial_loss():
    """Constant features cost their number which is the trivial value."""
    constant = torch.ones(4, 3, dtype=torch.float64)
    assert loss(constant, constant, 0.005) == pytest.approx(3.0)
    task = make("barlow-twins")
    step = task.compare({"a": torch.ones(4, 16), "b": torch.ones(4, 16)})
    assert step.loss.item() == pytest.approx(step.trivial_loss)


def test_loss_matches_naive_loop():
    a, b = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for i in range(3):
        for j in range(3):
            x = (a[:, i] - a[:, i].mean()) / (a[:, i].var(unbiased=False) + 1e-5).sqrt()
            y = (b[:, j] - b[:, j].mean()) / (b[:, j].var(unbiased=False) + 1e-5).sqrt()
            c = float((x * y).sum()) / 5
            expected += (1 - c) ** 2 if i == j else 0.1 * c**2
    assert loss(a, b, 0.1) == pytest.approx(expected, abs=1e-12)


def test_gradient_matches_finite_differences():
    a, b = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda x: sum(barlow_terms(standardised(x), standardised(b))), a.requires_grad_())
