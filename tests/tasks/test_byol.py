"""The loss of byol: closed forms, the stop of the gradient, and who follows whom."""

import pytest
import torch
from joint_world import make
from torch.nn import functional as F

from medssl_tasks.byol import regression


@pytest.mark.parametrize(("target", "expected"), [((1.0, 0.0), 0.0), ((0.0, 1.0), 2.0), ((-1.0, 0.0), 4.0)])
def test_regression_of_same_orthogonal_and_opposite_vectors(target, expected):
    """Same orthogonal and opposite vectors cost zero two and four."""
    prediction = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert regression(prediction, torch.tensor([target], dtype=torch.float64)).item() == expected


def test_regression_is_squared_distance_of_unit_vectors():
    a, b = F.normalize(torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)), dim=2).double()
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    assert regression(a, b).item() == pytest.approx((a - b).square().sum(dim=1).mean().item(), abs=1e-12)


def test_target_takes_no_gradient_and_directions_are_summed():
    """The target takes no gradient and both directions are summed."""
    task = make("byol")
    vectors = torch.randn(4, 3, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
    names = ("prediction_a", "prediction_b", "target_a", "target_b")
    loss = task.compare(dict(zip(names, vectors, strict=True))).loss
    loss.backward()
    assert (vectors.grad[:2].abs().sum(dim=(1, 2)) > 0).all()
    assert torch.equal(vectors.grad[2:], torch.zeros_like(vectors.grad[2:]))
    a, b, x, y = F.normalize(vectors.detach(), dim=2)
    assert loss.item() == pytest.approx(float(regression(a, y) + regression(b, x)), rel=1e-6)


def test_gradient_matches_finite_differences():
    prediction = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    target = F.normalize(torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)), dim=1)
    assert torch.autograd.gradcheck(lambda g: regression(F.normalize(g, dim=1), target), (prediction,))


def test_teacher_averages_encoder_and_projection():
    """The teacher follows encoder and projection once per step."""
    task = make("byol", momentum=0.5)
    with torch.no_grad():
        for weight in (*task.encoder.parameters(), *task.project.parameters()):
            weight.add_(1.0)
    gaps = [(s - t).clone() for s, t in zip(task.encoder.parameters(), task.teacher.parameters(), strict=True)]
    task.after_step(0, 100)
    left = [s - t for s, t in zip(task.encoder.parameters(), task.teacher.parameters(), strict=True)]
    assert all(torch.allclose(now, gap / 2, atol=1e-6) for now, gap in zip(left, gaps, strict=True))
    both = zip(task.project.parameters(), task.teacher_project.parameters(), strict=True)
    assert all(torch.allclose(student - teacher, torch.tensor(0.5), atol=1e-6) for student, teacher in both)
