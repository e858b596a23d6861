"""The training loop: pretraining and fine-tuning alike.

From top to bottom: read a region batch, make views on the device, forward, backward, clip, step; now and then log,
draw pictures, save. Every step seeds itself from (seed, step), so that a restart repeats nothing and misses nothing.
"""

import math
import time
from contextlib import ExitStack
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from medssl.errors import TrainingError
from medssl.loading.loader import RegionLoader
from medssl.progress import Progress
from medssl.randomness import generator
from medssl.runs.run import Run
from medssl.training.batch_gradient import backward, set_up_chunks
from medssl.training.checkpoint import read_checkpoint, restore, save_checkpoint
from medssl.training.fabric import worker_count
from medssl.training.finite import WHAT_TO_DO, FiniteWatch
from medssl.training.interrupt import stop_on_signal
from medssl.training.intervals import is_picture_step
from medssl.training.metrics import StepMetrics, progress_note
from medssl.training.optimizer import learning_rate, make_optimiser, set_learning_rate
from medssl.training.pictures import draw_pictures
from medssl.training.trainee import Trainee, Training
from medssl.views.region import Region


def train(training: Training, *, fabric: Fabric, run: Run, progress: Progress, resume: bool = False) -> None:
    """Train to the last step, writing metrics, pictures and checkpoints to `run`, on the processes that `fabric`
    has started.

    The trained module is `training.module` itself. Raises TrainingError when loss or gradient are no longer finite,
    CheckpointError when state cannot be written or read, DataError when a scan of the store cannot be read,
    KeyboardInterrupt or Terminated after a checkpoint when SIGINT or SIGTERM asked for a stop.
    """
    settings, total = training.loop, training.loop.steps
    # twice as fast in 3D convolutions on a CPU; torch's stubs do not know the argument
    module = training.module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    trainee = cast(Trainee, module)
    optimiser = make_optimiser([*training.parts, (module, 1.0)], training.optim)
    state = read_checkpoint(run.checkpoints) if resume else None
    first = restore(state, module=module, optimiser=optimiser) if state else 0
    model, optimiser = fabric.setup(module, optimiser)
    if state and state.get("precision"):  # empty but under 16-mixed, and absent from older checkpoints
        fabric.strategy.precision.load_state_dict(state["precision"])
    set_up_chunks(module, model, chunk=training.chunk)
    metrics, finite = StepMetrics(batch_size=settings.batch_size), FiniteWatch(fabric)
    watch = training.watch if fabric.is_global_zero else None
    if watch and state:
        watch.load_state_dict(state["watch"])
    elif not state:
        look(training, 0, run=run, progress=progress, fabric=fabric)
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
            norm = clip(fabric, model, optimiser, training.optim.clip_norm)
            set_learning_rate(optimiser, learning_rate(step, total, training.optim))
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            trainee.after_step(step, total)

            done = step + 1
            run.beat()
            finite.note(done, loss=output.loss, grad_norm=norm)
            logs = done % settings.log_every == 0 or done in (1, total)
            saves = done % settings.checkpoint_every == 0 or done == total
            if logs or saves:
                finite.check(together=True)
            if logs:
                metrics.add(output, grad_norm=norm, lr=optimiser.param_groups[-1]["lr"])
                report(metrics, done, total, run=run, progress=progress, fabric=fabric)
            if watch and watch.listens(done, total):
                watch.observe(output)
            look(training, done, run=run, progress=progress, fabric=fabric)
            if is_picture_step(done, total, settings.pictures_every):
                draw_pictures(training, run, step=done, fabric=fabric)
            stopping = bool(stop)
            if stopping:
                # alone: a signal may reach the ranks at different steps, where they would wait for each other for ever
                finite.check(together=False)
            if saves or stopping:
                save(training, done, optimiser=optimiser, run=run, fabric=fabric)
            if stopping:
                raise stop.exception()


def reader(training: Training, first: int, *, fabric: Fabric) -> RegionLoader:
    """The rank's share of the batches from step `first` on."""
    return RegionLoader(
        training.plan,
        workers=worker_count(training.loop),
        first_step=first,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        with_labels=training.with_labels,
        device=fabric.device,
    )


def look(training: Training, done: int, *, run: Run, progress: Progress, fabric: Fabric) -> None:
    """On rank 0 and where it is due: diagnose and probe the encoder, write both to the run, and say what is new."""
    watch, probe, total = training.watch, training.probe, training.loop.steps
    if not fabric.is_global_zero:
        return
    if watch and watch.is_due(done, total):
        verdict = watch.diagnose(done, run, device=fabric.device).verdict
        if watch.is_news(verdict) or done == total:
            progress.say(f"{'alarm at ' if verdict.alarm else ''}step {done}: {verdict}")
    if probe and probe.is_due(done, total):
        scores = probe.measure(device=fabric.device)
        run.log(done, scores)
        progress.say(f"step {done}: a linear probe reaches Dice {scores['probe/dice']:.3f}")


def save(training: Training, done: int, *, optimiser: Optimizer, run: Run, fabric: Fabric) -> None:
    """On rank 0: the checkpoint of everything that a restart needs."""
    if fabric.is_global_zero:
        save_checkpoint(
            run.checkpoints,
            module=training.module,
            optimiser=optimiser,
            step=done,
            watch=training.watch.state_dict() if training.watch else None,
            precision=fabric.strategy.precision.state_dict(),
        )


def clip(fabric: Fabric, model: nn.Module, optimiser: Optimizer, largest: float) -> Tensor:
    """Scale the gradient down to norm `largest`, where 0 clips nothing, and return the norm it had."""
    norm = fabric.clip_gradients(model, optimiser, max_norm=largest or math.inf, error_if_nonfinite=False)
    return cast(Tensor, norm)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make torch's own generator, which dropout and third-party tasks use, a function of seed, step and rank."""
    torch.manual_seed(int(generator(seed, step, f"torch/{rank}").integers(2**62)))


def report(metrics: StepMetrics, done: int, total: int, *, run: Run, progress: Progress, fabric: Fabric) -> None:
    """Write the metrics of the last steps and show them; raises TrainingError when the loss is not finite."""
    values = metrics.collect(fabric)
    if not math.isfinite(values["train/loss"]):
        raise TrainingError(f"The loss is {values['train/loss']} at step {done}. {WHAT_TO_DO}")
    if not fabric.is_global_zero:
        return
    run.log(done, values)
    progress.step("training", done, total, progress_note(values))
