"""The losses of moco against closed forms and a naive loop, and the order in which its queue is used and filled."""

import math

import pytest
import torch
from joint_world import make
from torch.nn import functional as F

from medssl_tasks.moco import batch_contrast, queue_contrast

DOUBLE = torch.float64


def everything(queries, queue):
    return torch.ones(len(queries), len(queue), dtype=torch.bool)


def test_queue_contrast_of_orthogonal_negatives():
    eye = torch.eye(40, dtype=DOUBLE)
    queries, queue = eye[:8], eye[8:]
    loss = queue_contrast(queries, queries, queue, negative=everything(queries, queue), temperature=0.2)
    assert loss.item() == pytest.approx(math.log1p(32 * math.exp(-5)), abs=1e-12)
    assert loss.item() == pytest.approx(0.19524955, abs=1e-8)


def test_queue_contrast_matches_naive_loop():
    """The queue loss is the cross entropy of a naive loop."""
    draw = torch.Generator().manual_seed(0)
    queries, keys, queue = (F.normalize(torch.randn(n, 5, dtype=DOUBLE, generator=draw), dim=1) for n in (3, 3, 7))
    terms = []
    for q, k in zip(queries, keys, strict=True):
        scores = [float(q @ k) / 0.3, *(float(q @ other) / 0.3 for other in queue)]
        terms.append(math.log(sum(math.exp(score) for score in scores)) - scores[0])
    loss = queue_contrast(queries, keys, queue, negative=everything(queries, queue), temperature=0.3)
    assert loss.item() == pytest.approx(sum(terms) / 3, abs=1e-12)


def test_keys_of_same_scan_are_excluded():
    """Keys of the own scan are no negatives and collapse still costs the same."""
    same = torch.ones(2, 4, dtype=DOUBLE) / 2
    queue = torch.ones(6, 4, dtype=DOUBLE) / 2
    other = everything(same, queue)
    other[0, :4] = False
    loss = queue_contrast(same, same, queue, negative=other, temperature=0.2)
    assert loss.item() == pytest.approx(math.log(7), abs=1e-12)
    apart = torch.cat([same[:1].expand(4, -1), -same[:1].expand(2, -1)])  # only its own scan's keys lie near
    near = queue_contrast(same[:1], same[:1], apart, negative=other[:1], temperature=0.2)
    assert near.item() == pytest.approx(math.log1p(6 * math.exp(-10)), abs=1e-12)


def test_query_without_negatives_costs_nothing():
    """A query whose scan owns the queue costs nothing and has no gradient."""
    query = F.normalize(torch.randn(1, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)), dim=1)
    query.requires_grad_()
    queue_contrast(
        query, query.detach(), query.detach(), negative=torch.zeros(1, 1, dtype=bool), temperature=0.2
    ).backward()
    assert torch.equal(query.grad, torch.zeros_like(query))


def test_batch_contrast_matches_naive_loop():
    """The batch loss is that of a naive loop."""
    draw = torch.Generator().manual_seed(1)
    queries, keys = (F.normalize(torch.randn(n, 5, dtype=DOUBLE, generator=draw), dim=1) for n in (2, 6))
    terms = []
    for number, q in enumerate(queries, start=3):
        scores = [float(q @ k) / 0.2 for k in keys]
        terms.append(math.log(sum(math.exp(score) for score in scores)) - scores[number])
    assert batch_contrast(queries, keys, first=3, temperature=0.2).item() == pytest.approx(sum(terms) / 2, abs=1e-12)


def embeddings(seed=0):
    draw = torch.Generator().manual_seed(seed)
    vectors = {name: torch.randn(3, 16, generator=draw) for name in ("query_a", "query_b", "key_a", "key_b")}
    return vectors | {"scan": torch.tensor([1, 2, 3])}


def test_loss_uses_queue_before_its_keys_enter():
    """The loss sees the queue without the keys of its own step."""
    task = make("moco")
    before = task.queue.vectors.clone()
    first = task.compare(embeddings()).loss
    assert torch.equal(task.queue.vectors, before)
    assert torch.equal(task.compare(embeddings()).loss, first)
    task.keys.pop()
    task.after_step(0, 10)
    expected = torch.cat([F.normalize(embeddings()[name], dim=1) for name in ("key_a", "key_b")])
    assert torch.allclose(task.queue.vectors[:6], expected)
    assert task.queue.owners[:6].tolist() == [1, 2, 3, 1, 2, 3]
    assert torch.equal(task.queue.vectors[6:], before[6:])


def test_keys_take_no_gradient():
    task = make("moco")
    given = {name: value.requires_grad_(value.is_floating_point()) for name, value in embeddings().items()}
    task.compare(given).loss.backward()
    assert given["query_a"].grad is not None
    assert given["key_a"].grad is None
