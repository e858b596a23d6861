"""The training loop: pretraining and fine-tuning alike.

From top to bottom: read a region batch, make views on the device, forward, backward, clip, step; now and then log,
diagnose, draw pictures, save. Every step seeds itself from (seed, step), so that a restart repeats nothing and misses
nothing.
"""

import time
from contextlib import ExitStack
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch.optim import Optimizer

from medssl.loading.loader import RegionLoader
from medssl.progress import Progress
from medssl.runs.ending import stop_on_signal
from medssl.runs.run import Run
from medssl.training.checkpoint import read_checkpoint, restore, save_checkpoint
from medssl.training.fabric import worker_count
from medssl.training.finite import FiniteWatch
from medssl.training.intervals import is_picture_step
from medssl.training.optimizer import lr_at_step, make_optimizer, set_lr
from medssl.training.pictures import draw_pictures
from medssl.training.step import backward, clip_gradient, seed_step, set_up_chunks
from medssl.training.step_metrics import StepMetrics, progress_note
from medssl.training.trainee import Trainee, Training
from medssl.views.region import Region


def train(training: Training, *, fabric: Fabric, run: Run, progress: Progress, resume: bool = False) -> None:
    """Train `training.module` to the last step, writing metrics, pictures and checkpoints to `run`.

    Args:
        training: What is trained, on what, and how.
        fabric: The processes, which have been started.
        run: The run folder; rank 0 writes it.
        progress: Shows the steps; on ranks above 0 a silent one.
        resume: Whether to go on from the run's checkpoint, where there is one.

    Raises:
        TrainingError: Loss or gradient are no longer finite.
        CheckpointError: State cannot be written or read.
        DataError: A scan of the store cannot be read.
        KeyboardInterrupt: SIGINT asked for a stop, after a checkpoint; on SIGTERM it is Terminated.
    """
    settings, total = training.loop, training.loop.steps
    # twice as fast in 3D convolutions on a CPU; torch's stubs do not know the argument
    module = training.module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    trainee = cast(Trainee, module)
    optimizer = make_optimizer([*training.scaled_modules, (module, 1.0)], training.optim)
    state = read_checkpoint(run.paths.checkpoint) if resume else None
    first = restore(state, module=module, optimizer=optimizer) if state else 0
    model, optimizer = fabric.setup(module, optimizer)
    set_up_chunks(module, model, chunk=training.chunk)
    metrics, finite = StepMetrics(batch_size=settings.batch_size), FiniteWatch(fabric)
    watch = training.watch if fabric.is_global_zero else None
    if state:
        restore_state(training, state, fabric=fabric)
    else:
        evaluate(training, 0, run=run, progress=progress, fabric=fabric)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signal())
        batches = iter(stack.enter_context(reader(training, first, fabric=fabric)))
        progress.step("training", first, total)
        stack.callback(progress.close, f"run: {run.folder}")
        for step in range(first, total):
            started = time.perf_counter()
            batch = next(batches)
            metrics.waited(time.perf_counter() - started)
            region = Region(batch, device=fabric.device, seed=settings.seed)
            seed_step(settings.seed, step, fabric.global_rank)
            with torch.no_grad():
                views = trainee.views(region)
            output = backward(model, views, fabric=fabric, chunk=training.chunk)
            norm = clip_gradient(fabric, model, optimizer, training.optim.clip_norm)
            set_lr(optimizer, lr_at_step(step, total, training.optim))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            trainee.after_step(step, total)

            done = step + 1
            run.beat()
            finite.note(done, loss=output.loss, grad_norm=norm)
            logs = done % settings.log_every == 0 or done in (1, total)
            saves = done % settings.checkpoint_every == 0 or done == total
            if logs or saves:
                finite.check(on_all_ranks=True)
            if logs:
                metrics.add(output, grad_norm=norm, lr=optimizer.param_groups[-1]["lr"])
                report(metrics, done, total, run=run, progress=progress, fabric=fabric)
            if watch and watch.should_observe(done, total):
                watch.observe(output)
            evaluate(training, done, run=run, progress=progress, fabric=fabric)
            if is_picture_step(done, total, settings.pictures_every):
                draw_pictures(training, run, step=done, fabric=fabric)
            stopping = bool(stop)
            if stopping:
                # Each rank for itself: a signal may reach the ranks at different steps, and a check on all of them
                # would then wait for ever.
                finite.check(on_all_ranks=False)
            if saves or stopping:
                save(training, done, optimizer=optimizer, run=run, fabric=fabric)
            if stopping:
                raise stop.exception()


def reader(training: Training, first: int, *, fabric: Fabric) -> RegionLoader:
    """This rank's part of the batches from step `first` on."""
    return RegionLoader(
        training.plan,
        workers=worker_count(training.loop),
        first_step=first,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        with_labels=training.with_labels,
        device=fabric.device,
    )


def evaluate(training: Training, done: int, *, run: Run, progress: Progress, fabric: Fabric) -> None:
    """On rank 0 and where it is due: diagnose the encoder, keep it as a candidate, and probe it."""
    watch, probe, total = training.watch, training.probe, training.loop.steps
    if not fabric.is_global_zero:
        return
    if watch and watch.evaluate_due(done, total):
        diagnosis = watch.evaluate(done, run, device=fabric.device)
        if training.candidates:
            training.candidates.add(done, diagnosis, run)
        if watch.changed(diagnosis.verdict) or done == total:
            alarm = "alarm at " if diagnosis.verdict.alarm else ""
            progress.say(f"{alarm}step {done}: {diagnosis.verdict}")
    if probe and probe.is_due(done, total):
        scores = probe.measure(device=fabric.device)
        run.log(done, scores)
        progress.say(f"step {done}: a linear probe reaches Dice {scores['probe/dice']:.3f}")


def report(metrics: StepMetrics, done: int, total: int, *, run: Run, progress: Progress, fabric: Fabric) -> None:
    """Write the metrics of the last steps and show them."""
    values = metrics.collect(fabric)
    if fabric.is_global_zero:
        run.log(done, values)
        progress.step("training", done, total, progress_note(values))


def save(training: Training, done: int, *, optimizer: Optimizer, run: Run, fabric: Fabric) -> None:
    """On rank 0: the checkpoint of everything that a restart needs."""
    if fabric.is_global_zero:
        save_checkpoint(
            run.paths.checkpoint,
            module=training.module,
            optimizer=optimizer,
            step=done,
            watch=training.watch.state_dict() if training.watch else None,
            candidates=training.candidates.state_dict() if training.candidates else None,
            precision=fabric.strategy.precision.state_dict(),
        )


def restore_state(training: Training, state: dict[str, Any], *, fabric: Fabric) -> None:
    """Put back what lies in a checkpoint beside module and optimizer: precision, and on rank 0 watch and candidates."""
    if state["precision"]:  # empty but under 16-mixed
        fabric.strategy.precision.load_state_dict(state["precision"])
    if training.watch and fabric.is_global_zero:
        training.watch.load_state_dict(state["watch"])
    if training.candidates and fabric.is_global_zero:
        training.candidates.load_state_dict(state["candidates"] or [])
