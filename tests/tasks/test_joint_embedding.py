"""What holds for every task that compares crops or features of one region."""

import copy
import math
from itertools import product

import pytest
import torch
from joint_world import CASES, PATCH, VARIANTS, adam, gradient, in_double, make, region, store_phantoms, take_step

from medssl.conformance.checks import SINGLE_PROCESS_CHECKS
from medssl.errors import ConfigError
from medssl.pretext.gradient_cache import backward_in_chunks
from medssl.testing import Workbench
from medssl_tasks.jepa import JEPA

WITH_BATCH_NORM = ("simclr with batch norm", "simsiam", "moco", "swav")
COMPARING = [case for case in CASES if case not in ("simclr with batch norm", "jepa")]
# Zeros in full precision are a check of the conformance kit.
DEGENERATE = [("zeros", "bf16"), *product(("identical", "enormous"), ("32 bits", "bf16"))]
# Share of the trivial loss that thirty steps on four phantoms must come below.
LEARNED = {"dino": 0.9, "dino with masks": 0.9, "jepa": 0.6, "vicreg": 0.8, "barlow-twins": 0.8}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return store_phantoms(tmp_path_factory.mktemp("store"), 4)


@pytest.fixture(scope="module")
def views_of(scans):
    """Views of a case's four samples at a step, made once; whoever changes them takes a copy of the dict."""
    known = {}

    def views(case, step=0):
        if (case, step) not in known:
            known[case, step] = make(case).views(region(make(case), scans, step=step))
        return dict(known[case, step])

    return views


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module", params=CASES)
def learned(request, views_of):
    """(case, task, views, losses) after thirty steps on one batch."""
    task = make(request.param)
    views, optimizer = views_of(request.param), adam(task)
    losses = [take_step(task, views, optimizer, step=step, total=30) for step in range(30)]
    return request.param, task, views, losses


def test_thirty_steps_beat_trivial_loss(learned):
    case, task, views, losses = learned
    trivial = task(views).trivial_loss
    assert trivial is not None
    assert losses[-1] < (LEARNED.get(case, 0.7) * trivial if trivial > 0 else -0.25)


def test_energy_of_pairs_is_below_negative_energy(learned):
    """Pairs that belong together have the lower energy once learned."""
    _, task, views, _ = learned
    seen = task.eval()(views)
    assert seen.energy.shape == seen.negative_energy.shape == (4,)
    assert seen.energy.mean() < seen.negative_energy.mean()


def test_energy_in_evaluation_ignores_other_samples(learned):
    """In evaluation an energy does not depend on the rest of the batch."""
    case, task, views, _ = learned
    if case == "swav without queue":
        return  # its codes are shares of the batch, and nothing else is there to balance them against
    task.eval()
    beside_one, beside_other = (
        task({name: view[[0, other]] for name, view in views.items()}).energy[0].item() for other in (1, 2)
    )
    assert beside_one == pytest.approx(beside_other, rel=2e-2 if case == "swav" else 1e-4)


@pytest.mark.parametrize("case", VARIANTS)
def test_variant_passes_conformance_kit(case):
    """The kit checks every task with its defaults (tests/plugins); this is for the settings that change the code."""
    task, settings = CASES[case]
    bench = Workbench(task, options=settings)
    for check in SINGLE_PROCESS_CHECKS:
        check(bench)


def test_step_has_pictures_and_embeddings(case, views_of):
    step = make(case)(views_of(case))
    assert step.pictures
    assert all(len(picture) == 4 for picture in step.pictures.values())
    assert step.embeddings.ndim == 2


def test_evaluation_changes_no_state(case, views_of):
    task = make(case).eval()
    before = copy.deepcopy(task.state_dict())
    task(views_of(case))
    task.after_step(0, 10**9)
    after = task.state_dict()
    frozen = ("vectors", "written", "mean", "moved", "centroids", "weights", "variance", "batches")
    assert all(torch.equal(before[name], after[name]) for name in before if name.split(".")[-1] in frozen)


@pytest.mark.parametrize(("kind", "precision"), DEGENERATE)
def test_loss_and_gradient_are_finite_on_degenerate_input(case, kind, precision, views_of):
    task, views = make(case), views_of(case)
    for name in [n for n, view in views.items() if view.ndim == 5 and view.is_floating_point()]:
        view = views[name]
        views[name] = {
            "zeros": torch.zeros_like(view),
            "identical": view[:1].expand_as(view).clone(),
            "enormous": 1e4 * view,
        }[kind]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        step = task(views)
    step.loss.backward()
    assert math.isfinite(step.loss.item())
    assert torch.isfinite(gradient(task)).all()


def test_batch_of_one_can_be_evaluated(case, scans):
    task = make(case).eval()
    step = task(task.views(region(task, scans[:1])))
    assert step.energy.shape == (1,)
    assert step.negative_energy is None
    assert math.isfinite(step.loss.item())


@pytest.mark.parametrize("case", ["simclr", "moco without queue", "barlow-twins", "vicreg"])
def test_contrastive_batch_of_one_is_refused(case, scans):
    """A batch of one cannot be trained on where volumes are said otherwise apart."""
    task = make(case)
    with pytest.raises(ConfigError, match=r"loop\.batch_size"):
        task(task.views(region(task, scans[:1])))


@pytest.mark.parametrize("case", COMPARING)
def test_gradient_of_chunks_equals_that_of_batch(case, views_of):
    """The gradient of chunks is that of the batch."""
    task = make(case, norm="layer").double()
    views = in_double(views_of(case))
    twin = copy.deepcopy(task)
    whole = task(views)
    whole.loss.backward()
    cached = backward_in_chunks(twin, views, chunk=2)
    assert cached.loss.item() == pytest.approx(whole.loss.item(), rel=1e-12)
    expected, got = gradient(task), gradient(twin)
    assert (got - expected).norm() < 1e-12 * expected.norm()


@pytest.mark.parametrize("case", WITH_BATCH_NORM)
def test_chunks_are_refused_with_batch_norm(case, scans):
    """Chunks are refused where a norm looks across the batch."""
    task = make(case)
    with pytest.raises(ConfigError, match="batch norm"):
        backward_in_chunks(task, task.views(region(task, scans)), chunk=2)


def test_task_without_embed_cannot_be_chunked(scans):
    """A task that does not split cannot be chunked."""
    task = make("jepa")
    assert isinstance(task, JEPA)
    with pytest.raises(ConfigError, match="does not split"):
        backward_in_chunks(task, task.views(region(task, scans)), chunk=2)


@pytest.mark.parametrize("case", ["swav", "dino"])
def test_small_crops_fit_encoder_and_lie_near_pair(case):
    """Small crops fit the encoder and lie near the pair."""
    task = make(case)
    crops = task.crops(PATCH)
    assert crops["small 0"].size == (8, 8, 12)  # halves of 16, 20, 24 in steps of 4
    assert crops["small 0"].anchor == crops["b"].anchor == "a"
    assert crops["a"].size == crops["b"].size == PATCH
