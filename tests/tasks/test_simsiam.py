"""The loss of simsiam: closed forms and the stop of the gradient."""

import pytest
import torch
from joint_world import make
from torch.nn import functional as F

from medssl_tasks.simsiam import alignment


@pytest.mark.parametrize(("target", "expected"), [((1.0, 0.0), -1.0), ((0.0, 1.0), 0.0), ((-1.0, 0.0), 1.0)])
def test_alignment_of_same_orthogonal_and_opposite_vectors(target, expected):
    """Same orthogonal and opposite vectors cost minus one zero and one."""
    prediction = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert alignment(prediction, torch.tensor([target], dtype=torch.float64)).item() == expected


def test_loss_matches_naive_loop_of_both_directions():
    """The loss is the mean of both directions of a naive loop."""
    task = make("simsiam")
    a, b, x, y = torch.randn(4, 3, 16, generator=torch.Generator().manual_seed(0))
    loss = task.compare({"prediction_a": a, "prediction_b": b, "target_a": x, "target_b": y}).loss
    cosines = [float(F.cosine_similarity(p[None], q[None])) for p, q in zip((*a, *b), (*y, *x), strict=True)]
    assert loss.item() == pytest.approx(-sum(cosines) / 6, rel=1e-6)


def test_gradient_stops_at_target():
    target = torch.randn(2, 4, requires_grad=True)
    prediction = torch.randn(2, 4, requires_grad=True)
    alignment(prediction, target).backward()
    assert target.grad is None
    assert prediction.grad.abs().sum() > 0


def test_gradient_matches_finite_differences():
    prediction = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    target = F.normalize(torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)), dim=1)
    assert torch.autograd.gradcheck(lambda g: alignment(F.normalize(g, dim=1), target), (prediction,))


def test_collapsed_encoder_has_lowest_loss_and_no_gap():
    """A collapsed encoder has the lowest loss but no gap between pairs."""
    task = make("simsiam")
    same = torch.ones(3, 16)
    step = task.compare({"prediction_a": same, "prediction_b": same, "target_a": same, "target_b": same})
    assert step.loss.item() == pytest.approx(-1.0, abs=1e-6)
    assert torch.allclose(step.energy, step.negative_energy)
