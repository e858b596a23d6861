"""The training loop: pretraining and fine-tuning alike.

From top to bottom: read a region batch, make views on the device, forward, backward, clip, step; now and then log,
draw pictures, save. Every step seeds itself from (seed, step), so that a restart repeats nothing and misses nothing.
"""

import atexit
import math
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from medssl.config import LoopConfig, OptimConfig
from medssl.errors import TrainingError
from medssl.randomness import generator
from medssl.runs.run import Run
from medssl.store.loader import RegionLoader
from medssl.store.plan import BatchPlan
from medssl.training.batch_gradient import backward, set_up_chunks
from medssl.training.checkpoint import read_checkpoint, restore, save_checkpoint
from medssl.training.finite import WHAT_TO_DO, FiniteWatch
from medssl.training.interrupt import stop_on_signal
from medssl.training.metrics import StepMetrics
from medssl.training.online_probe import OnlineProbe
from medssl.training.optimisation import learning_rate, make_optimiser, set_learning_rate
from medssl.training.pictures import draw_pictures, is_picture_step
from medssl.training.progress import Progress
from medssl.training.watch import CollapseWatch
from medssl.views.region import Region


@runtime_checkable
class Trainee(Protocol):
    """What the loop trains: a pretext task, or the segmentation of fine-tuning."""

    def views(self, region: Region) -> dict[str, Tensor]:
        """Tensors for the forward pass, made on the device without gradient."""

    def after_step(self, step: int, total: int) -> None:
        """Called once after each optimiser step."""


@dataclass(frozen=True)
class Training:
    """Everything one training needs.

    parts: modules with their share of the learning rate; a module in two parts belongs to the first. chunk: samples of
    a rank that the gradient cache embeds at a time, 0 for all. In a pretraining, `watch` looks for collapse and `probe`
    at a few labels.
    """

    module: nn.Module
    plan: BatchPlan
    optim: OptimConfig
    loop: LoopConfig
    with_labels: bool = False
    parts: Sequence[tuple[nn.Module, float]] = field(default=())
    chunk: int = 0
    watch: CollapseWatch | None = None
    probe: OnlineProbe | None = None


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
        progress.start(total)
        stack.callback(progress.close, f"run: {run.folder}")
        for step in range(first, total):
            started = time.perf_counter()
            batch = next(batches)
            metrics.waited(time.perf_counter() - started)
            region = Region.from_batch(batch, device=fabric.device, seed=settings.seed)
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
                report(metrics, done, run=run, progress=progress, fabric=fabric)
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
        world=fabric.world_size,
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


def start_fabric(settings: LoopConfig) -> Fabric:
    """Strategy, precision and processes for these settings; bf16 on GPUs that have it, 32 bits elsewhere, unless
    told.
    """
    precision = chosen_precision(settings)
    devices = settings.devices
    if devices == "auto" and not torch.cuda.is_available():
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # as many processes as torchrun has started
    machines = int(os.environ.get("GROUP_WORLD_SIZE") or os.environ.get("SLURM_NNODES") or 1)  # of torchrun, or SLURM
    strategy = "ddp" if machines > 1 or (isinstance(devices, int) and devices > 1) else "auto"
    fabric = Fabric(
        accelerator="auto", devices=devices, num_nodes=machines, strategy=strategy, **precision_of(precision)
    )
    fabric.launch()
    atexit.register(leave_process_group)
    return fabric


def leave_process_group() -> None:
    """Take leave of the other processes, where there are any, before Python ends: gloo's threads drop Python objects of
    the last exchange, and one that comes too late aborts the process.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def chosen_precision(settings: LoopConfig) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Arithmetic: as asked; automatic means bf16 where the GPU has it, which needs no scaling of the loss."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def precision_of(name: str) -> dict[str, Any]:
    """Arguments of Fabric for this precision. Mixed precision leaves views as they are: Fabric's own would round them
    to 16 bits, targets and the places of points included; autocast converts what convolutions and products take.
    """
    if name not in ("bf16-mixed", "16-mixed"):
        return {"precision": name}
    from lightning_fabric.plugins import MixedPrecision

    class ViewsAsTheyAre(MixedPrecision):  # type: ignore[misc]  # untyped in its distribution
        def convert_input(self, data: Any) -> Any:
            return data

    return {"plugins": [ViewsAsTheyAre(name, "cuda" if torch.cuda.is_available() else "cpu")]}


def clip(fabric: Fabric, model: nn.Module, optimiser: Optimizer, largest: float) -> Tensor:
    """Scale the gradient down to norm `largest`, where 0 clips nothing, and return the norm it had."""
    norm = fabric.clip_gradients(model, optimiser, max_norm=largest or math.inf, error_if_nonfinite=False)
    return cast(Tensor, norm)


def worker_count(settings: LoopConfig) -> int:
    """Data workers: as asked; automatic means up to 4 beside a GPU and none without one, where they would take
    cores from the network.
    """
    if settings.workers != "auto":
        return int(settings.workers)
    return 4 if torch.cuda.is_available() else 0


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make torch's own generator, which dropout and third-party tasks use, a function of seed, step and rank."""
    torch.manual_seed(int(generator(seed, step, f"torch/{rank}").integers(2**62)))


def report(metrics: StepMetrics, done: int, *, run: Run, progress: Progress, fabric: Fabric) -> None:
    """Write the metrics of the last steps and show them; raises TrainingError when the loss is not finite."""
    values = metrics.collect(fabric)
    if not math.isfinite(values["train/loss"]):
        raise TrainingError(f"The loss is {values['train/loss']} at step {done}. {WHAT_TO_DO}")
    if not fabric.is_global_zero:
        return
    run.log(done, values)
    progress.step(
        done,
        loss=values["train/loss"],
        volumes_per_s=values["train/volumes_per_s"],
        wait_share=values["train/data_wait_share"],
    )
