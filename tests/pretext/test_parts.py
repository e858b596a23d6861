"""The parts that tasks share, against closed forms and naive loops."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medssl.pretext.clustering import Prototypes, balanced_codes, sinkhorn
from medssl.pretext.collectives import gather, rank, sum_over_ranks, world_size
from medssl.pretext.kmeans import kmeans_plus_plus, spherical_kmeans
from medssl.pretext.moments import RunningMoments
from medssl.pretext.momentum import Teacher, momentum_at
from medssl.pretext.projection import BatchNorm, Projection, features_at, pooled_levels, unit
from medssl.pretext.queue import Queue, scan_numbers

DRAW = torch.Generator().manual_seed(0)
DOUBLE = torch.float64


def balanced(scores, iterations=3):
    return sinkhorn(scores, epsilon=0.05, iterations=iterations)


def test_sinkhorn_balances_with_iterations():
    """Codes of a sample sum to one and prototypes fill evenly with more rounds."""
    scores = F.normalize(torch.randn(12, 5, dtype=DOUBLE, generator=DRAW), dim=1)
    gaps = []
    for rounds in (1, 3, 10, 100):
        plan = balanced(scores, rounds)
        assert torch.allclose(plan.sum(dim=1), torch.ones(12, dtype=DOUBLE), atol=1e-14)
        gaps.append((plan.sum(dim=0) - 12 / 5).abs().max().item())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-2


def test_sinkhorn_matches_paper_listing():
    scores = F.normalize(torch.randn(6, 4, dtype=DOUBLE, generator=DRAW), dim=1)
    plan = (scores / 0.05).exp().T  # (K, B), as in Caron et al. 2020, listing in appendix A
    plan /= plan.sum()
    for _ in range(3):
        plan /= plan.sum(dim=1, keepdim=True)
        plan /= 4
        plan /= plan.sum(dim=0, keepdim=True)
        plan /= 6
    assert torch.allclose(balanced(scores), (plan * 6).T, atol=1e-12)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (torch.zeros(5, 4), torch.full((5, 4), 0.25)),
        (torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.full((2, 2), 0.5)),
        (torch.eye(4), torch.eye(4)),
    ],
)
def test_sinkhorn_of_known_scores(scores, expected):
    assert torch.allclose(balanced(scores.double()), expected.double(), atol=1e-8)


def test_sinkhorn_is_shift_invariant_and_finite():
    """A constant on all scores changes nothing and huge scores stay finite."""
    scores = torch.randn(6, 4, dtype=DOUBLE, generator=DRAW)
    assert torch.allclose(balanced(scores), balanced(scores + 3.0), atol=1e-12)
    assert torch.isfinite(balanced(1e4 * scores.float())).all()


def test_memory_without_mass_does_not_count():
    """A memory counts as samples and what has no mass does not."""
    scores, memory = torch.randn(4, 3, dtype=DOUBLE, generator=DRAW), torch.randn(5, 3, dtype=DOUBLE, generator=DRAW)
    settings = {"epsilon": 0.5, "iterations": 3}
    together = sinkhorn(torch.cat([memory, scores]), **settings)[5:]
    assert torch.allclose(balanced_codes(scores, memory=memory, **settings), together)
    mass = torch.tensor([1.0, 0, 1, 0, 0])
    known = sinkhorn(torch.cat([memory[[0, 2]], scores]), **settings)[2:]
    assert torch.allclose(balanced_codes(scores, memory=memory, memory_mass=mass, **settings), known, atol=1e-12)


def test_queue_is_first_in_first_out():
    """A queue is first in first out whatever the batch."""
    queue, rows = Queue(5, 2), torch.arange(24.0).view(12, 2)
    queue.push(rows[:3])
    assert queue.is_filled().tolist() == [1, 1, 1, 0, 0]
    queue.push(rows[3:5], torch.tensor([7, 8]))
    queue.push(rows[5:7])
    assert queue.vectors.tolist() == rows[[5, 6, 2, 3, 4]].tolist()
    assert queue.owners.tolist() == [0, 0, 0, 7, 8]
    queue.push(rows[:12])  # more than it holds: the last five, in their order
    assert sorted(queue.vectors[:, 0].tolist()) == rows[7:, 0].tolist()
    again = Queue(5, 2)
    again.load_state_dict(queue.state_dict())
    again.push(rows[:1])
    queue.push(rows[:1])
    assert torch.equal(again.vectors, queue.vectors)


def test_scan_numbers_are_positive_and_distinct():
    """Scans are known by a number of their own."""
    numbers = scan_numbers(("a", "b", "a"), torch.device("cpu"))
    assert numbers[0] == numbers[2] != numbers[1]
    assert (numbers > 0).all()


def test_teacher_decays_with_momentum():
    """A teacher of zeros reaches one minus momentum to the steps."""
    student = nn.Linear(2, 2)
    nn.init.zeros_(student.weight)
    teacher = Teacher(student).double()
    nn.init.ones_(student.weight)
    for _ in range(10):
        teacher.update(student, 0.996)
    assert teacher.module.weight.tolist() == [[pytest.approx(0.03928763, abs=1e-8)] * 2] * 2


def test_momentum_rises_along_cosine():
    """Momentum rises from its base to one along a cosine."""
    assert momentum_at(0, 100, base=0.99) == pytest.approx(0.99)
    assert momentum_at(50, 100, base=0.99) == pytest.approx(0.995)
    assert momentum_at(100, 100, base=0.99) == 1.0
    for total_steps, start in ((100, 0.9), (1000, 0.96), (10**6, 0.996)):
        assert momentum_at(0, total_steps, base="auto") == pytest.approx(start)


def test_teacher_keeps_only_batch_norms_in_training():
    """A teacher takes no gradient and drops nothing out but keeps its batch norms in training."""
    student = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), BatchNorm(4))
    teacher = Teacher(student).train()
    modes = [module.training for module in teacher.module]
    assert modes == [False, False, True, True]
    assert not any(module.training for module in copy.deepcopy(teacher).eval().modules())
    assert not teacher(torch.rand(3, 4)).requires_grad


def test_prototypes_score_cosines_and_freeze():
    layer, vectors = Prototypes(4, 3).double(), torch.randn(2, 4, dtype=DOUBLE, generator=DRAW)
    expected = [[float(F.cosine_similarity(v, w, dim=0)) for w in layer.weight.detach()] for v in vectors]
    assert torch.allclose(layer(vectors), torch.tensor(expected, dtype=DOUBLE))
    layer(vectors, torch.tensor(1.0)).sum().backward()
    assert torch.equal(layer.weight.grad, torch.zeros_like(layer.weight))


def test_batch_norm_matches_torch():
    ours, torchs = BatchNorm(5).double(), nn.BatchNorm1d(5).double()
    vectors = torch.randn(7, 5, dtype=DOUBLE, generator=DRAW)
    assert torch.allclose(ours(vectors), torchs(vectors), atol=1e-12)
    cells = torch.randn(3, 4, 5, dtype=DOUBLE, generator=DRAW)
    assert torch.allclose(ours(cells), torchs(cells.mT).mT, atol=1e-12)


def test_running_moments_match_all_rows():
    moments, batches = RunningMoments(3).double(), [n + torch.randn(2, 3, dtype=DOUBLE) for n in range(10)]
    for rows in batches:
        moments.update(rows)
    rows = torch.cat(batches)
    assert torch.allclose(moments.mean, rows.mean(0), atol=1e-6)
    assert torch.allclose(moments.variance, rows.var(0, unbiased=False), atol=1e-5)
    moments.update(rows[:1])  # one row has a mean and no variance
    expected = 0.9 * rows.mean(0) + 0.1 * rows[0]
    assert torch.allclose(moments.mean, expected, atol=1e-6)


def test_batch_norm_in_evaluation_uses_running_moments():
    """A batch norm in evaluation looks at one vector and leaves its moments."""
    layer = BatchNorm(5, kinds=2).double()
    rows = torch.randn(8, 5, dtype=DOUBLE, generator=DRAW) * 3 + 1
    shown = layer(rows)
    layer.eval()
    before = copy.deepcopy(layer.state_dict())
    assert torch.allclose(layer(rows), shown, atol=1e-6)
    assert torch.allclose(layer(rows[:1]), layer(rows)[:1], atol=1e-12)
    assert torch.allclose(layer(rows, 1), rows, atol=1e-4)  # nothing of this kind was seen
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_teacher_moments_do_not_average_student():
    """A teacher has moments of its own that do not follow the student."""
    student = nn.Sequential(BatchNorm(4))
    teacher = Teacher(student).train()
    student(torch.randn(6, 4) + 5)
    teacher(torch.randn(6, 4) - 5)
    teacher.update(student, 0.5)
    assert (teacher.module[0].moments[0].mean < -3).all()


def test_checkpoint_without_moments_can_be_loaded():
    """A checkpoint without moments can be gone on with."""
    layer = BatchNorm(4)
    old = {name: value for name, value in layer.state_dict().items() if "moments" not in name}
    layer.load_state_dict(old, strict=True)
    assert layer.moments[0].batches == 0


def test_projection_ends_without_norm():
    kinds = [type(layer).__name__ for layer in Projection(8, 4, hidden=6, layers=3).layers]
    assert kinds == ["Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm", "ReLU", "Linear"]
    last = Projection(8, 4, hidden=6, norm="batch", last_norm=True).layers[-1]
    assert isinstance(last, BatchNorm)
    assert not last.weight.requires_grad


def test_features_at_samples_every_level():
    """Features of a place are those of the voxel there at every level."""
    size = (4, 8, 6)
    fine = torch.arange(4 * 8 * 6.0).view(1, 1, *size).double()
    coarse = F.avg_pool3d(fine, 2)
    voxels = torch.tensor([[[1.0, 5.0, 2.0], [0.0, 0.0, 0.0], [2.5, 4.5, 2.5]]]).double()
    found = features_at([fine, coarse], voxels, size)
    assert found[0, 0, 0] == fine[0, 0, 1, 5, 2]
    assert found[0, 1, 1] == coarse[0, 0, 0, 0, 0]
    assert found[0, 2, 0] == pytest.approx(fine[0, 0, 2:4, 4:6, 2:4].mean())
    assert found[0, 2, 1] == coarse[0, 0, 1, 2, 1]  # its centre lies between voxels 2 and 3, 4 and 5, 2 and 3


def test_pooled_levels_are_mean_and_maximum():
    """Pooling gives mean and maximum of the coarsest levels."""
    pyramid = [torch.rand(2, channels, 2, 3, 4, generator=DRAW) for channels in (2, 3)]
    assert pooled_levels(pyramid, 1).shape == (2, 6)
    expected = torch.cat([pyramid[1].flatten(2).mean(dim=2), pyramid[1].flatten(2).max(dim=2).values], dim=1)
    assert torch.allclose(pooled_levels(pyramid, 1), expected)


def test_unit_ignores_scale_and_survives_zeros():
    """Unit vectors do not depend on scale and zeros have a finite gradient."""
    vector = torch.randn(1, 5, generator=DRAW)
    assert torch.allclose(unit(vector), unit(1e4 * vector), atol=1e-6)
    nothing = torch.zeros(1, 5, requires_grad=True)
    unit(nothing).sum().backward()
    assert torch.isfinite(nothing.grad).all()


def test_gather_in_single_process_is_identity():
    rows = torch.rand(3, 2)
    assert gather(rows) is rows
    assert (world_size(), rank()) == (1, 0)
    assert torch.equal(sum_over_ranks(rows), rows)


def test_kmeans_finds_directions_and_fills_empty_clusters():
    """Kmeans finds directions that are there and gives empty clusters a place."""
    sizes = torch.tensor([30, 10, 5, 5])
    noise = 0.02 * torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    vectors = F.normalize(torch.eye(6)[:4].repeat_interleave(sizes, 0) + noise, dim=1)
    centroids, label = spherical_kmeans(vectors, kmeans_plus_plus(vectors, 4), iterations=10)
    assert torch.allclose(centroids.norm(dim=1), torch.ones(4))
    assert sorted(torch.bincount(label).tolist()) == [5, 5, 10, 30]
    _, label = spherical_kmeans(vectors, vectors[:1].expand(4, -1).clone(), iterations=10)  # all begin at one place
    assert (torch.bincount(label, minlength=4) > 0).all()


def test_spherical_kmeans_matches_lloyd():
    vectors = F.normalize(torch.randn(40, 3, dtype=DOUBLE, generator=DRAW), dim=1)
    centroids, label = spherical_kmeans(vectors, vectors[:5], iterations=3)
    expected = [row.tolist() for row in vectors[:5]]
    for _ in range(3):
        members = [[] for _ in expected]
        for vector in vectors.tolist():
            scores = [sum(x * y for x, y in zip(vector, centre, strict=True)) for centre in expected]
            members[scores.index(max(scores))].append(vector)
        sums = [[sum(axis) for axis in zip(*member, strict=True)] for member in members]
        expected = [[x / math.hypot(*row) for x in row] for row in sums]
    assert torch.allclose(centroids, torch.tensor(expected, dtype=DOUBLE), atol=1e-12)
    assert torch.equal(label, (vectors @ centroids.T).argmax(dim=1))
