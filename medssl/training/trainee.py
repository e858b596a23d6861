"""What the loop trains, and everything that one training needs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from medssl.config import LoopConfig, OptimConfig
from medssl.loading.plan import BatchPlan
from medssl.training.candidates import EncoderCandidates
from medssl.training.online_probe import OnlineProbe
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

    Attributes:
        module: What is trained: a `Trainee`.
        plan: Which regions each step sees.
        optim: Settings of the optimizer and its schedule.
        loop: Length, batch size, precision, and what happens every how many steps.
        with_labels: Whether batches carry labels.
        scaled_modules: Parts of `module` with the factor of their learning rate; a parameter in two of them belongs to
            the first.
        chunk: Samples of a rank that the gradient cache embeds at a time; 0 takes the batch at once.
        watch: Looks for collapse, in a pretraining.
        candidates: Keeps the encoders among which one is chosen at the end of a pretraining.
        probe: Measures a few labels, in a pretraining that asks for it.
    """

    module: nn.Module
    plan: BatchPlan
    optim: OptimConfig
    loop: LoopConfig
    with_labels: bool = False
    scaled_modules: Sequence[tuple[nn.Module, float]] = field(default=())
    chunk: int = 0
    watch: CollapseWatch | None = None
    candidates: EncoderCandidates | None = None
    probe: OnlineProbe | None = None
