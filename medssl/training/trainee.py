"""The training loop: pretraining and fine-tuning alike.

From top to bottom: read a region batch, make views on the device, forward, backward, clip, step; now and then log,
draw pictures, save. Every step seeds itself from (seed, step), so that a restart repeats nothing and misses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from medssl.config import LoopConfig, OptimConfig
from medssl.loading.plan import BatchPlan
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
