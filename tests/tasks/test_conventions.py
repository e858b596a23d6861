"""What holds for every task that learns from one sample at a time: masked, generative and classic ones."""

import math
from itertools import product

import pytest
import torch
from joint_world import TASKS as JOINT
from small_world import SmallEncoder, SmallRegion, phantoms, trained

from medssl.plugins import list_tasks, load_task

# Tested elsewhere: what compares across the batch (test_joint_embedding.py), what keeps a state over steps, and what is
# made of others.
ELSEWHERE = (*JOINT, "pseudo-segmentation", "combine")
TASKS = [load_task(entry.name).cls for entry in list_tasks() if entry.built_in and entry.name not in ELSEWHERE]
# Zeros in full precision are a check of the conformance kit.
DEGENERATE = [("zeros", "bf16"), *product(("identical", "enormous"), ("32 bits", "bf16"))]
PATCH = (12, 16, 16)
# Share of the trivial loss that forty steps on two phantoms must come below; denoising begins near 1, twice its own.
LEARNED = {"denoising": 0.9, "patch-context": 0.8, "adversarial": 0.9}
SETTINGS = {"adversarial": {"width": 4}}


def make(task):
    torch.manual_seed(0)
    return task(SmallEncoder(), task.Config(**SETTINGS.get(task.name, {})))


def region(subject, batch=2, volume=None):
    (crop,) = subject.crops(PATCH).values()
    if volume is None:
        volume = phantoms(batch, crop.size)
    return SmallRegion(volume)


def trivial(step):
    return step.trivial_loss if step.trivial_loss is not None else step.terms["trivial_loss"].item()


@pytest.fixture(params=TASKS, ids=lambda task: task.name)
def task(request):
    return request.param


def test_forty_steps_beat_trivial_loss_and_order_energies(task):
    """Forty steps end below the trivial loss and pairs that belong together have the lower energy."""
    subject = make(task)
    views = subject.views(region(subject))
    losses = trained(subject, views, 40)
    step = subject(views)
    assert losses[-1] < LEARNED.get(task.name, 0.6) * trivial(step)
    assert step.energy.shape == step.negative_energy.shape == (2,)
    assert (step.energy < step.negative_energy).all()


def test_gradients_of_two_halves_average(task):
    """The gradient of two halves averages to that of the whole."""
    subject = make(task).double()
    views = {k: v.double() if v.is_floating_point() else v for k, v in subject.views(region(subject, 4)).items()}
    whole = gradient(subject, views)
    halves = [gradient(subject, {key: view[rows] for key, view in views.items()}) for rows in (slice(2), slice(2, 4))]
    mean = torch.stack(halves).mean(0)
    assert torch.cosine_similarity(mean, whole, dim=0).item() > 1 - 1e-10
    assert mean.norm().item() == pytest.approx(whole.norm().item(), rel=1e-8)


def gradient(subject, views):
    subject.zero_grad()
    subject(views).loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in subject.parameters()])


def test_views_depend_on_sample_alone(task):
    """Views are a function of seed and sample alone and leave the region as it was."""
    subject = make(task)
    (crop,) = subject.crops(PATCH).values()
    volumes = phantoms(3, crop.size)
    before = volumes.clone()
    together = subject.views(SmallRegion(volumes))
    alone = subject.views(SmallRegion(volumes[2:], first=2))
    assert torch.equal(volumes, before)
    assert all(torch.allclose(together[key][2:].float(), alone[key].float(), atol=1e-5) for key in alone)
    assert not any(view.requires_grad for view in together.values())


@pytest.mark.parametrize(("kind", "precision"), DEGENERATE)
def test_loss_and_gradient_are_finite_on_degenerate_input(task, kind, precision):
    subject = make(task)
    (crop,) = subject.crops(PATCH).values()
    volume = {
        "zeros": torch.zeros(2, 1, *crop.size),
        "identical": phantoms(1, crop.size).expand(2, -1, -1, -1, -1),
        "enormous": 1e4 * phantoms(2, crop.size),
    }[kind]
    views = subject.views(SmallRegion(volume))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        step = subject(views)
    step.loss.backward()
    assert math.isfinite(step.loss.item())
    assert all(torch.isfinite(weight.grad).all() for weight in subject.parameters())


def test_step_in_evaluation_is_detached(task):
    """In training the conformance kit checks it."""
    subject = make(task).eval()
    step = subject(subject.views(region(subject)))
    assert "scan" in step.pictures
    assert all(p.ndim == 5 and p.shape[:2] == (2, 1) and not p.requires_grad for p in step.pictures.values())
    assert all(term.ndim == 0 and not term.requires_grad for term in step.terms.values())
    assert step.embeddings.ndim == 2
    assert not any(values.requires_grad for values in (step.embeddings, step.energy, step.negative_energy))


def test_batch_of_one_trains(task):
    subject = make(task)
    step = subject(subject.views(region(subject, 1)))
    assert step.energy.shape == (1,)
    step.loss.backward()


def test_valid_fraction_is_zero_without_scored_voxels(task):
    """A sample with nothing to score is said otherwise from a perfect one."""
    subject = make(task).eval()
    views = subject.views(region(subject))
    (name,) = [key for key in views if key in ("scored", "weight")] or [None]
    if name is None:
        assert subject(views).valid_fraction is None  # a class is asked for every patch
        return
    views[name] = views[name].clone()
    views[name][1] = 0
    scored = subject(views).valid_fraction.tolist()
    assert scored[0] > 0.0 == scored[1]
