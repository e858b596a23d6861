"""Checks of a pretext task. Each raises PluginError with a sentence that says what to change."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from inspect import getdoc
from typing import Any

import torch
from torch import Tensor

from medssl.config import setting_rows
from medssl.conformance.step_rules import check_axes, check_batch, check_step
from medssl.conformance.workbench import Workbench, optimizer_of
from medssl.encoders.encoder import Decoder, Encoder
from medssl.errors import PluginError
from medssl.loading.crops import Crop
from medssl.plugins.check import TASK_BASE, check_class
from medssl.pretext.task import Step
from medssl.views.region import Region

Check = Callable[[Workbench], None]


def describes_itself(bench: Workbench) -> None:
    """A name for the command line, a family, a docstring, and settings with defaults, bounds and meanings."""
    cls = bench.cls
    check_class(cls, base=TASK_BASE, origin=cls.__module__)
    if not isinstance(getattr(cls, "family", None), str) or not cls.family:
        raise PluginError('it has no family. Add a class attribute such as family = "masked modelling".')
    if not cls.__doc__ or not getdoc(cls):
        raise PluginError("the class has no docstring. Say in one line what is learned: `plugins show` prints it.")
    for row in setting_rows(cls.Config):
        if not row.meaning:
            raise PluginError(f"setting '{row.key}' has no description. Say what it is, with its unit.")
        if row.default == "required" and row.key not in bench.options:
            raise PluginError(f"setting '{row.key}' has no default. Give one that works at 2-8 volumes per device.")
        if row.kind in ("number", "whole number") and not row.bounds:
            raise PluginError(f"setting '{row.key}' has no bounds. Add ge=, gt=, le= or lt= to its Field.")


def crops_are_declared(bench: Workbench) -> None:
    """`crops` returns crops by name, the same each time, and `views` cuts only those."""
    task = bench.task()
    crops = task.crops(bench.patch)
    if not isinstance(crops, Mapping) or not crops or not all(isinstance(crop, Crop) for crop in crops.values()):
        raise PluginError(f"crops returns {crops!r}. Return a mapping such as {{'patch': medssl.Crop(size=patch)}}.")
    if task.crops(bench.patch) != crops:
        raise PluginError("crops differs from call to call. What is random about a crop is drawn by the host.")
    bench.views(task)


def views_are_tensors(bench: Workbench) -> None:
    """`views` returns finite tensors by name, one row per sample, with axes in the order (B, C, D, H, W)."""
    task = bench.task()
    sizes = [tuple(crop.size) for crop in task.crops(bench.patch).values()]
    views = bench.views(task)
    if not isinstance(views, dict) or not views:
        raise PluginError(f"views returns {type(views).__name__}. Return a dict of tensors.")
    for name, view in views.items():
        if not isinstance(view, Tensor):
            raise PluginError(f"view '{name}' is a {type(view).__name__}. Every view is a tensor.")
        if view.requires_grad:
            raise PluginError(f"view '{name}' carries a gradient. Views are made without: leave networks to forward.")
        if view.is_floating_point() and not view.isfinite().all():
            raise PluginError(f"view '{name}' has values that are not finite. Guard divisions and logarithms.")
        check_axes(f"view '{name}'", view, sizes)


def views_are_deterministic(bench: Workbench) -> None:
    """Views depend only on the region's random numbers and on torch's generator."""
    task = bench.task()
    first, second = bench.views(task), bench.views(task)
    for name, view in first.items():
        if not torch.equal(view, second[name]):
            raise PluginError(
                f"view '{name}' differs between two calls with the same seed. Draw from region.random "
                "(or from torch), not from numpy or random: otherwise a run cannot be resumed or repeated."
            )


def step_is_complete(bench: Workbench) -> None:
    """`forward` returns a Step: a finite scalar loss, an energy per sample, detached terms and pictures."""
    task = bench.task()
    sizes = [tuple(crop.size) for crop in task.crops(bench.patch).values()]
    views = bench.views(task)
    sizes += [tuple(view.shape[2:]) for view in views.values() if view.ndim == 5]
    check_step(task(views), batch=2, sizes=sizes)


def any_batch_size_works(bench: Workbench) -> None:
    """Batches of two and three work, in training and in evaluation."""
    task = bench.task()
    views = bench.views(task, batch=3)
    check_batch(task(views), batch=3)
    task.eval()
    with torch.no_grad():
        step = task(bench.views(task))
    if not step.loss.isfinite():
        raise PluginError(
            f"in evaluation (task.eval()) the loss is {step.loss.item()}. Pictures are drawn in that mode."
        )


def forward_leaves_views_alone(bench: Workbench) -> None:
    """`forward` writes to none of its views."""
    task = bench.task()
    views = bench.views(task)
    before = {name: view.clone() for name, view in views.items()}
    task(views)
    for name, view in before.items():
        if name not in views or not torch.equal(view, views[name]):
            raise PluginError(
                f"forward changes view '{name}' in place. Write to a copy (masked_fill instead of masked_fill_): "
                "the gradient cache and the pictures use the views again."
            )


def every_parameter_learns(bench: Workbench) -> None:
    """Every parameter that asks for a gradient gets a finite one, the encoder's above all."""
    task = bench.task()
    step = task(bench.views(task))
    if not isinstance(step, Step) or not step.loss.requires_grad:
        raise PluginError("the loss has no gradient. It is detached, or depends on no parameter.")
    step.loss.sum().backward()  # type: ignore[no-untyped-call]
    unused = [name for name, p in task.named_parameters() if p.requires_grad and p.grad is None]
    if any(name.startswith("encoder.") for name in unused) or not _encoder_moves(task):
        raise PluginError(
            "the loss does not reach the encoder: its gradient is missing or zero. Look for a detach or a no_grad "
            "between encoder and loss."
        )
    if unused:
        raise PluginError(
            f"{len(unused)} parameters get no gradient ({', '.join(unused[:3])}, ...): several processes would wait "
            "for them forever. Remove them, or set requires_grad to False where they are not trained."
        )
    for name, p in task.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            raise PluginError(f"the gradient of {name} is not finite. Guard divisions, roots and logarithms.")


def few_steps_train(bench: Workbench) -> None:
    """Six steps leave everything finite, and what is exported has changed."""
    task = bench.task()
    before = deepcopy(task.exported_encoder().state_dict())
    bench.train(task, optimizer_of(task), range(6), total=6)
    broken = [
        name for name, value in task.state_dict().items() if value.is_floating_point() and not value.isfinite().all()
    ]
    if broken:
        raise PluginError(f"after six steps {broken[0]} is not finite. The loss explodes at a learning rate of 1e-3.")
    after = task.exported_encoder().state_dict()
    if all(torch.equal(value, after[name]) for name, value in before.items()):
        raise PluginError(
            "six steps leave the exported encoder as it was. Return the encoder that is trained from "
            "exported_encoder, and update a teacher in after_step."
        )


def resume_is_exact(bench: Workbench) -> None:
    """Two steps, save, load into a new task, two steps: the same bits as four steps."""
    uninterrupted = bench.task()
    bench.train(uninterrupted, optimizer_of(uninterrupted), range(4), total=4)
    first = bench.task()
    first_optimizer = optimizer_of(first)
    bench.train(first, first_optimizer, range(2), total=4)
    second = bench.task()
    with torch.no_grad():  # only what the state holds may survive
        for p in second.parameters():
            p.add_(1.0)
    second_optimizer = optimizer_of(second)
    second.load_state_dict(first.state_dict())
    second_optimizer.load_state_dict(deepcopy(first_optimizer.state_dict()))
    bench.train(second, second_optimizer, range(2, 4), total=4)
    expected, resumed = uninterrupted.state_dict(), second.state_dict()
    differs = [name for name, value in expected.items() if not torch.equal(value, resumed[name])]
    if differs:
        raise PluginError(
            f"resumed after two of four steps, {differs[0]} ends with other values. Keep queues, teachers, centres "
            "and counters in buffers (register_buffer) or parameters, so that a checkpoint holds them."
        )


def half_precision_works(bench: Workbench) -> None:
    """Under bfloat16 the loss is finite and near the one of full precision."""
    task = bench.task()
    views = bench.views(task)
    torch.manual_seed(bench.seed)
    exact = float(task(views).loss.detach().sum())
    task = bench.task()
    torch.manual_seed(bench.seed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = task(views)
    rough = float(step.loss.detach().sum())
    if not math.isfinite(rough) or abs(rough - exact) > 0.1 * max(abs(exact), 0.5):
        raise PluginError(
            f"under bfloat16 the loss is {rough:.4g} instead of {exact:.4g}. Compute similarities, norms, "
            "exponentials and the loss itself in float32 (tensor.float())."
        )


def exports_fit(bench: Workbench) -> None:
    """`exported_encoder` is an encoder of the same architecture, `exported_decoder` a decoder that fits it, or None."""
    task = bench.task()
    encoder, exported, decoder = task.encoder, task.exported_encoder(), task.exported_decoder()
    if not isinstance(exported, Encoder) or exported.description != encoder.description:
        raise PluginError(
            f"exported_encoder returns {type(exported).__name__}. Return an encoder built like the task's own."
        )
    if {name: v.shape for name, v in exported.state_dict().items()} != {
        n: v.shape for n, v in encoder.state_dict().items()
    }:
        raise PluginError(
            "the exported encoder has other parameters than the task's encoder. Keep heads out of the encoder."
        )
    if decoder is not None and not isinstance(decoder, Decoder):
        raise PluginError(
            f"exported_decoder returns {type(decoder).__name__}. Return a decoder of the encoder, or None."
        )
    image = torch.zeros(2, encoder.description.in_channels, *bench.patch)
    with torch.no_grad():
        pyramid = exported.eval()(image)
        shape = None if decoder is None else decoder.eval()(pyramid, image).shape[2:]
    if shape is not None and tuple(shape) != bench.patch:
        raise PluginError(
            f"the exported decoder gives {tuple(shape)} for a patch of {bench.patch}. Use encoder.make_decoder."
        )


def _encoder_moves(task: Any) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in task.encoder.parameters())


CHANNELS = 2


class TwoChannels(Region):
    """A region whose crops carry a second channel, another contrast of the first."""

    def crop(self, name: str) -> Tensor:
        """(B, 2, D, H, W)."""
        first = super().crop(name)
        return torch.cat([first, 1.0 - 0.5 * first.abs()], dim=1)


def several_channels_work(bench: Workbench) -> None:
    """Images with two channels work, and both channels reach the encoder."""
    task = bench.task(channels=CHANNELS)
    region = bench.region(task, kind=TwoChannels)
    advice = "Take the number of channels from encoder.description.in_channels, and reduce over all axes but the first."
    try:
        views = bench.views(task, region)
        step = task(views)
        check_step(step, batch=2, sizes=[tuple(view.shape[2:]) for view in views.values() if view.ndim == 5])
        step.loss.backward()
    except (RuntimeError, ValueError, IndexError, PluginError) as error:
        raise PluginError(f"with images of two channels it fails: {error} {advice}") from error
    first = next(p for p in task.encoder.parameters() if p.ndim == 5)  # the weights that read the image
    if first.grad is None or (first.grad.abs().amax(dim=(0, 2, 3, 4)) == 0).any():
        raise PluginError(f"of two channels only one reaches the encoder. {advice}")


AIR = -1.0


class ConstantRegion(Region):
    """A region of air: every crop has one value throughout."""

    def crop(self, name: str) -> Tensor:
        """(B, C, D, H, W)."""
        return torch.full_like(super().crop(name), AIR)


def evaluation_changes_no_state(bench: Workbench) -> None:
    """In evaluation `forward` leaves every buffer as it was."""
    task = bench.task().eval()
    views = bench.views(task)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with torch.no_grad():
        task(views)
    for name, value in task.state_dict().items():
        if not torch.equal(value, before[name]):
            raise PluginError(
                f"in evaluation (task.eval()) forward changes {name}: drawing a picture or scoring a scan would change "
                "the training. Write to it where self.training is True, or in after_step."
            )


def constant_patches_work(bench: Workbench) -> None:
    """Patches with one value throughout, such as air, have a finite loss and a finite gradient."""
    task = bench.task()
    step = task(bench.views(task, bench.region(task, kind=ConstantRegion)))
    advice = (
        "A patch of air has no variance: add a small number before dividing, and before taking roots or logarithms."
    )
    if not step.loss.isfinite().all() or not step.energy.isfinite().all():
        raise PluginError(f"for patches with one value throughout, loss or energy is not finite. {advice}")
    if step.loss.requires_grad:
        step.loss.sum().backward()
    for name, p in task.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            raise PluginError(f"for patches with one value throughout, the gradient of {name} is not finite. {advice}")


# Those that need one process only.
SINGLE_PROCESS_CHECKS: tuple[Check, ...] = (
    describes_itself,
    crops_are_declared,
    views_are_tensors,
    views_are_deterministic,
    step_is_complete,
    any_batch_size_works,
    forward_leaves_views_alone,
    every_parameter_learns,
    few_steps_train,
    resume_is_exact,
    half_precision_works,
    exports_fit,
    evaluation_changes_no_state,
    constant_patches_work,
    several_channels_work,
)
