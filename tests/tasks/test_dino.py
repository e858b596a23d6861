"""dino: distillation terms, centre, and what student and teacher see."""

import math

import pytest
import torch
from joint_world import make, region, store_phantoms
from torch.nn import functional as F

from medssl.pretext.distillation import Centre, cross_entropy, entropy, prototype_usage, teacher_probabilities


@pytest.mark.parametrize("count", [4096, 65536])
def test_uniform_student_costs_log_of_prototypes(count):
    """A uniform student costs the logarithm of the prototypes."""
    target = torch.softmax(torch.randn(2, count, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    loss = cross_entropy(target, torch.zeros(2, count).double(), temperature=0.1)
    assert loss.tolist() == pytest.approx([math.log(count)] * 2, abs=1e-9)


def test_cross_entropy_is_entropy_plus_divergence():
    draw = torch.Generator().manual_seed(0)
    target, scores = torch.softmax(torch.randn(3, 8, generator=draw), 1), torch.randn(3, 8, generator=draw)
    student = torch.softmax(scores / 0.1, dim=1)
    divergence = (target * (target / student).log()).sum(dim=1)
    assert torch.allclose(cross_entropy(target, scores, temperature=0.1), entropy(target) + divergence, atol=1e-4)


def test_constant_on_scores_and_centre_cancels():
    """Adding a constant to scores and centre changes nothing."""
    scores, centre = torch.randn(2, 5).double(), torch.randn(5).double()
    one = teacher_probabilities(scores, centre=centre, temperature=0.04)
    other = teacher_probabilities(scores + 7.0, centre=centre + 7.0, temperature=0.04)
    assert torch.allclose(one, other, atol=1e-10)


def test_centre_starts_at_first_mean():
    """The centre is the first mean and then a tenth of each new one."""
    centre = Centre(3)
    first, second = torch.rand(4, 3), torch.rand(2, 5, 3)
    centre.observe(first)
    assert torch.equal(centre.mean, torch.zeros(3))
    centre.update()
    assert torch.allclose(centre.mean, first.mean(dim=0))
    centre.observe(second)
    centre.update()
    assert torch.allclose(centre.mean, 0.9 * first.mean(dim=0) + 0.1 * second.mean(dim=(0, 1)))


def test_centre_ignores_scores_without_weight():
    centre, scores = Centre(3), torch.rand(2, 4, 3)
    weight = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]])
    centre.observe(scores, weight)
    centre.update()
    assert torch.allclose(centre.mean, (scores[0, 0] + scores[1, 2]) / 2)


def test_prototype_usage_of_even_and_single_use():
    """Usage is one for even use and zero for one prototype."""
    assert prototype_usage(torch.eye(4), across_ranks=False).item() == pytest.approx(1.0)
    assert prototype_usage(torch.eye(4)[:1].expand(5, -1), across_ranks=False).item() == pytest.approx(0.0)


def test_crops_are_not_paired_with_themselves():
    task = make("dino").eval()
    draw = torch.Generator().manual_seed(0)
    names = ("student a", "student b", "student small 0", "student small 1", "teacher a", "teacher b")
    given = {name: torch.rand(3, 16, generator=draw) for name in names}
    terms = []
    for teacher in ("a", "b"):
        target = F.softmax(given[f"teacher {teacher}"] / 0.04, dim=1)
        for student in ("a", "b", "small 0", "small 1"):
            if student != teacher:
                terms.append(-(target * F.log_softmax(given[f"student {student}"] / 0.1, dim=1)).sum(dim=1).mean())
    assert task.compare(given).loss.item() == pytest.approx(float(torch.stack(terms).mean()), rel=1e-5)


def test_hidden_cells_are_hidden_from_student_only(tmp_path):
    """The student does not see hidden cells and the teacher sees them."""
    task = make("dino with masks").eval()
    views = task.views(region(task, store_phantoms(tmp_path, 2)))
    hidden = F.interpolate(views["hidden a"].float(), size=views["a"].shape[2:]).bool()
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.02)
    changed = views | {"a": torch.where(hidden, views["a"] + 3.0, views["a"])}
    before, after = task.embed(views), task.embed(changed)
    assert torch.equal(before["student a"], after["student a"])
    assert not torch.equal(before["teacher a"], after["teacher a"])


def test_teacher_is_exported():
    task = make("dino")
    assert task.exported_encoder() is task.teacher.module
    assert task.exported_encoder() is not task.encoder
