"""The conformance kit passes what is right and catches what is wrong, each fault with the sentence that fixes it."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import medssl
from medssl.conformance import checks
from medssl.conformance import checks as channels
from medssl.conformance import checks as rare_cases
from medssl.conformance.checks import SINGLE_PROCESS_CHECKS
from medssl.conformance.two_ranks import two_ranks_equal_one
from medssl.conformance.workbench import PATCH, Workbench
from medssl.errors import PluginError
from medssl.plugins import list_tasks, load_task
from medssl.testing import parametrize_with_checks, run_checks

BUILT_IN = [entry.name for entry in list_tasks() if entry.built_in]


class Good(medssl.PretextTask):
    """Hide blocks of a patch and reconstruct them."""

    name = "good"
    family = "test"

    class Config(medssl.TaskConfig):
        ratio: float = medssl.Field(default=0.5, gt=0, lt=1, description="share of the blocks that is hidden")

    def __init__(self, encoder, config):
        super().__init__(encoder, config)
        self.head = medssl.VoxelHead(encoder)

    def views(self, region):
        scan = region.crop("patch")
        shape = tuple(scan.shape[2:])
        hidden = medssl.block_mask(region.random, "hidden", shape=shape, block=(8, 8, 8), ratio=self.config.ratio)
        return {"scan": scan, "hidden": hidden}

    def guess(self, views):
        return self.head(self.encoder(views["scan"].masked_fill(views["hidden"], 0.0)))

    def forward(self, views):
        guess = self.guess(views)
        energy = ((guess - views["scan"]).square() * views["hidden"]).mean(dim=(1, 2, 3, 4))
        return medssl.Step(energy.mean(), energy.detach(), pictures={"guess": guess.detach()})


class WritesToItsViews(Good):
    def guess(self, views):
        return self.head(self.encoder(views["scan"].masked_fill_(views["hidden"], 0.0)))


class DrawsFromNumpy(Good):
    def views(self, region):
        scan = region.crop("patch")
        return {"scan": scan, "hidden": torch.from_numpy(np.random.random(scan.shape) < 0.5)}


class HasAnUnusedParameter(Good):
    def __init__(self, encoder, config):
        super().__init__(encoder, config)
        self.forgotten = nn.Linear(3, 3)


class DetachesTheEncoder(Good):
    def guess(self, views):
        return self.head([level.detach() for level in self.encoder(views["scan"])])


class LogsItsGraph(Good):
    def forward(self, views):
        step = super().forward(views)
        return medssl.Step(step.loss, step.energy, terms={"loss": step.loss})


class ReturnsALossPerSample(Good):
    def forward(self, views):
        energy = (self.guess(views) - views["scan"]).square().mean(dim=(1, 2, 3, 4))
        return medssl.Step(energy, energy.detach())


class TransposesAxes(Good):
    def views(self, region):
        return {name: view.transpose(2, 4).contiguous() for name, view in super().views(region).items()}


class TransposesAPicture(Good):
    def forward(self, views):
        step = super().forward(views)
        return medssl.Step(step.loss, step.energy, pictures={"guess": step.pictures["guess"].transpose(2, 4)})


class CountsInAnAttribute(Good):
    seen = 0

    def forward(self, views):
        step = super().forward(views)
        return medssl.Step(step.loss * (1 + self.seen), step.energy)

    def after_step(self, step, total):
        self.seen += 1


class LosesPrecision(Good):
    def forward(self, views):
        step = super().forward(views)
        large = torch.ones(16, 16) * 17.3
        error = (large @ large - 16 * 17.3 * 17.3).float().mean()
        return medssl.Step(step.loss + error, step.energy)


class LooksAcrossOneRankOnly(Good):
    def forward(self, views):
        features = nn.functional.normalize(self.encoder(views["scan"])[-1].mean(dim=(2, 3, 4)), dim=1)
        likeness = features @ features.T / 0.2
        energy = nn.functional.cross_entropy(likeness, torch.arange(len(likeness)), reduction="none")
        return medssl.Step(energy.mean() + 0 * self.guess(views).sum(), energy.detach())


class TalksToOneRankOnly(Good):
    def forward(self, views):
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            raise RuntimeError("lost on rank 1")
        return super().forward(views)


class KeepsAQueueOfItsOwnRank(Good):
    def __init__(self, encoder, config):
        super().__init__(encoder, config)
        self.register_buffer("last", torch.zeros(()))

    def forward(self, views):
        with torch.no_grad():
            self.last.copy_(views["scan"].mean())
        return super().forward(views)


class HasOneEnergyForAll(Good):
    def forward(self, views):
        step = super().forward(views)
        return medssl.Step(step.loss, step.energy.mean())


class TakesTwoSamplesOnly(Good):
    def forward(self, views):
        step = super().forward(views)
        return medssl.Step(step.loss, step.energy[:2])


class ReturnsADict(Good):
    def forward(self, views):
        return {"loss": super().forward(views).loss}


class ForgetsItsTeacher(Good):
    def __init__(self, encoder, config):
        super().__init__(encoder, config)
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def exported_encoder(self):
        return self.teacher


class ExportsAHead(Good):
    def __init__(self, encoder, config):
        encoder.extra = nn.Linear(2, 2)
        super().__init__(encoder, config)
        self.slim = copy.deepcopy(encoder)
        del self.slim.extra

    def exported_encoder(self):
        return self.slim


class ExplainsNothing(Good):
    """Settings without a meaning."""

    class Config(medssl.TaskConfig):
        ratio: float = medssl.Field(default=0.5, gt=0, lt=1)


class NeedsASetting(Good):
    """A setting without a default."""

    class Config(medssl.TaskConfig):
        ratio: float = medssl.Field(gt=0, lt=1, description="share")


class HasNoBounds(Good):
    """A setting without bounds."""

    class Config(medssl.TaskConfig):
        ratio: float = medssl.Field(default=0.5, description="share")


class DividesByZero(Good):
    def views(self, region):
        views = super().views(region)
        return views | {"share": views["scan"] / 0.0}


class KnowsOneChannelOnly(Good):
    def __init__(self, encoder, config):
        super().__init__(encoder, config)
        self.head = medssl.VoxelHead(encoder)
        self.smooth = nn.Conv3d(1, 1, 3, padding=1)

    def guess(self, views):
        return self.smooth(super().guess(views))


class LooksAtTheFirstChannelOnly(Good):
    def guess(self, views):
        scan = views["scan"].clone()
        scan[:, 1:] = 0.0
        return super().guess(dict(views, scan=scan))


class CallsAnEnergyTrivial(Good):
    def forward(self, views):
        step = super().forward(views)
        step.trivial_loss = (
            step.energy
        )  # type checks at run time, which only tests have, would refuse it in the constructor
        return step


class HasNoWrongPairs(Good):
    def forward(self, views):
        step = super().forward(views)
        return medssl.Step(step.loss, step.energy, negative_energy=step.energy[:0])


class CountsInEvaluationToo(Good):
    def __init__(self, encoder, config):
        super().__init__(encoder, config)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, views):
        self.seen.add_(1)
        return super().forward(views)


class DividesByTheVariance(Good):
    def forward(self, views):
        step = super().forward(views)
        energy = step.energy / views["scan"].var(dim=(1, 2, 3, 4))
        return medssl.Step(step.loss / views["scan"].var(), energy)


class TakesARootOfNothing(Good):
    def forward(self, views):
        step, scan = super().forward(views), views["scan"]
        contrast = (self.head.out.weight * scan.std()).square().sum().sqrt()
        return medssl.Step(step.loss + contrast, step.energy)


class KeepsTheGraphOfAPart(Good):
    def forward(self, views):
        step = super().forward(views)
        return medssl.Step(step.loss, step.energy, parts={"one": step})


FAULTS = [
    (
        CallsAnEnergyTrivial,
        checks.step_is_complete,
        "trivial_loss is Tensor. It is a finite number .* among the terms",
    ),
    (HasNoWrongPairs, checks.step_is_complete, "negative_energy is empty. Give one number per pair, or None"),
    (KeepsTheGraphOfAPart, checks.step_is_complete, "the loss of part 'one' carries its graph"),
    (CountsInEvaluationToo, rare_cases.evaluation_changes_no_state, "forward changes seen: .* self.training is True"),
    (TakesARootOfNothing, rare_cases.constant_patches_work, "the gradient of .* is not finite. A patch of air"),
    (
        DividesByTheVariance,
        rare_cases.constant_patches_work,
        "loss or energy is not finite. A patch of air has no variance",
    ),
    (KnowsOneChannelOnly, channels.several_channels_work, "two channels it fails: .* encoder.description.in_channels"),
    (LooksAtTheFirstChannelOnly, channels.several_channels_work, "only one reaches the encoder"),
    (WritesToItsViews, checks.forward_leaves_views_alone, "forward changes view 'scan' in place"),
    (DrawsFromNumpy, checks.views_are_deterministic, "view 'hidden' differs .* Draw from region.random"),
    (HasAnUnusedParameter, checks.every_parameter_learns, "2 parameters get no gradient .forgotten.weight"),
    (DetachesTheEncoder, checks.every_parameter_learns, "the loss does not reach the encoder"),
    (LogsItsGraph, checks.step_is_complete, "term 'loss' carries its graph.* Add .detach"),
    (ReturnsALossPerSample, checks.step_is_complete, r"the loss has shape \(2,\). Reduce it to a scalar"),
    (
        TransposesAxes,
        checks.views_are_tensors,
        r"view 'scan' has edges \(32, 24, 16\), a crop's edges in another order",
    ),
    (TransposesAPicture, checks.step_is_complete, r"picture 'guess' has edges \(32, 24, 16\)"),
    (
        CountsInAnAttribute,
        checks.resume_is_exact,
        "Keep queues, teachers, centres and counters in buffers",
    ),
    (LosesPrecision, checks.half_precision_works, "under bfloat16 the loss is"),
    (HasOneEnergyForAll, checks.step_is_complete, "energy is not a vector"),
    (TakesTwoSamplesOnly, checks.any_batch_size_works, "energy has 2 numbers for 3 samples"),
    (ReturnsADict, checks.step_is_complete, "forward returns dict. Return medssl.Step"),
    (ForgetsItsTeacher, checks.few_steps_train, "six steps leave the exported encoder as it was"),
    (ExportsAHead, checks.exports_fit, "Keep heads out of the encoder"),
    (ExplainsNothing, checks.describes_itself, "setting 'ratio' has no description"),
    (NeedsASetting, checks.describes_itself, "setting 'ratio' has no default"),
    (HasNoBounds, checks.describes_itself, "setting 'ratio' has no bounds"),
    (WritesToItsViews, checks.describes_itself, "the class has no docstring"),
    (DividesByZero, checks.views_are_tensors, "view 'share' has values that are not finite"),
    (LooksAcrossOneRankOnly, two_ranks_equal_one, "with two processes the gradient differs"),
    (KeepsAQueueOfItsOwnRank, two_ranks_equal_one, "last differs between two processes"),
    (
        TalksToOneRankOnly,
        two_ranks_equal_one,
        "RuntimeError: lost on rank 1",
    ),
]


@pytest.mark.parametrize(("cls", "check", "sentence"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_kit_catches_fault_and_says_the_fix(cls, check, sentence):
    with pytest.raises(PluginError, match=sentence):
        check(Workbench(cls))


@parametrize_with_checks([Good])
def test_good_task_passes_each_check(check):
    check()


@pytest.mark.parametrize("name", BUILT_IN)
def test_shipped_tasks_pass_single_process_checks(name):
    bench = Workbench(load_task(name).cls)
    for check in SINGLE_PROCESS_CHECKS:
        check(bench)


def test_error_in_task_is_an_outcome(monkeypatch):
    """With its file and line; the other checks run."""

    def crash(self, views: Tensor) -> None:
        raise ZeroDivisionError("in forward")

    monkeypatch.setattr(Good, "forward", crash)
    outcomes = {outcome.name: outcome.problem for outcome in run_checks(Good, two_ranks=False)}
    assert outcomes["views_are_tensors"] is None
    assert outcomes["step_is_complete"].startswith("ZeroDivisionError: in forward (")
    assert "test_conformance_kit.py" in outcomes["step_is_complete"]


def test_workbench_regions_equal_those_of_the_loader():
    bench = Workbench(Good)
    region = bench.region(bench.task(), batch=2)
    assert region.crop("patch").shape == (2, 1, *PATCH)
    assert len(set(PATCH)) == 3
    first, second = (bench.region(bench.task(), batch=4, rank=rank, world_size=2).numbers for rank in range(2))
    assert (first, second) == ((0, 1), (2, 3))
