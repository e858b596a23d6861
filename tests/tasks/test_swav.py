"""swav: who predicts whose code, and when vectors and prototypes move."""

import math

import pytest
import torch
from joint_world import make
from torch.nn import functional as F

from medssl.pretext.clustering import sinkhorn


def embeddings(task, seed=0):
    draw = torch.Generator().manual_seed(seed)
    names = ("a", "b", *task.config.small_names)
    vectors = {name: F.normalize(torch.randn(5, 16, generator=draw), dim=1) for name in names}
    return vectors | {f"scores {name}": task.prototypes(vector).detach() for name, vector in vectors.items()}


def test_loss_matches_naive_loop_over_codes():
    """The loss is the mean over codes and other crops of a naive loop."""
    task = make("swav without queue")
    given = embeddings(task)
    terms = []
    for code in ("a", "b"):
        target = sinkhorn(given[f"scores {code}"], epsilon=task.config.epsilon, iterations=3)
        for other in ("a", "b", "small 0", "small 1"):
            if other != code:
                log_share = F.log_softmax(given[f"scores {other}"] / 0.1, dim=1)
                terms += [-float((t * s).sum()) for t, s in zip(target, log_share, strict=True)]
    assert task.compare(given).loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_equal_scores_cost_log_of_prototypes():
    task = make("swav without queue")
    given = {name: torch.zeros_like(value) if "scores" in name else value for name, value in embeddings(task).items()}
    step = task.compare(given)
    assert step.loss.item() == pytest.approx(math.log(4), rel=1e-6)
    assert step.trivial_loss == pytest.approx(math.log(4))


def test_codes_take_no_gradient():
    task = make("swav without queue")
    given = embeddings(task)
    small = {name: value.requires_grad_() for name, value in given.items() if name.startswith("scores")}
    target = sinkhorn(given["scores a"].detach(), epsilon=task.config.epsilon, iterations=3)
    task.compare(given).loss.backward()
    student = F.softmax(given["scores small 0"].detach() / 0.1, dim=1)
    other = sinkhorn(given["scores b"].detach(), epsilon=task.config.epsilon, iterations=3)
    expected = ((student - target) + (student - other)) / (0.1 * 5 * 6)  # only the soft-max side is differentiated
    assert torch.allclose(small["scores small 0"].grad, expected, atol=1e-6)


def test_queue_takes_vectors_after_their_step():
    """The queue is company for the next step and not for its own."""
    task = make("swav")
    first = task.compare(embeddings(task)).loss
    assert torch.equal(task.compare(embeddings(task)).loss, first)
    task.after_step(0, 10)
    assert task.queue.written.item() == 20  # two crops of five samples, twice
    assert not torch.equal(task.compare(embeddings(task)).loss, first)


def test_prototypes_are_frozen_for_frozen_fraction():
    """Prototypes keep still for their fraction of the run."""
    task = make("swav", frozen_fraction=0.2)
    vectors = F.normalize(torch.randn(3, 16), dim=1)
    for step in range(10):
        task.zero_grad()
        task.prototypes(vectors, task.frozen).sum().backward()
        moves = bool(task.prototypes.weight.grad.abs().sum() > 0)
        assert moves == (step >= 2)
        task.after_step(step, 10)
