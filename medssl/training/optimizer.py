"""Optimiser and learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from torch import nn
from torch.optim import AdamW, Optimizer

from medssl.config import OptimConfig


@runtime_checkable
class HasUnscheduledModules(Protocol):
    """A task with parts that the schedule leaves alone."""

    def unscheduled_modules(self) -> Iterable[nn.Module]:
        """Modules whose learning rate is its peak at every step: no warm-up, no decay."""


def make_optimiser(parts: Iterable[tuple[nn.Module, float]], settings: OptimConfig) -> Optimizer:
    """AdamW over `(module, share of the learning rate)` parts; a parameter in two parts belongs to the first.

    What a task names in `unscheduled_modules` keeps its rate, see `set_learning_rate`. Vectors and scalars (norms,
    biases, mask tokens) are not decayed: decay of a norm's scale shrinks features without regularising anything (He et
    al. 2019, arXiv 1812.01187, section 3.1).
    """
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    listed = list(parts)
    steady = [
        inner
        for module, _ in listed
        if isinstance(module, HasUnscheduledModules)
        for inner in module.unscheduled_modules()
    ]
    named = [*((inner, 1.0, False) for inner in steady), *((module, share, True) for module, share in listed)]
    for module, lr_share, scheduled in named:
        own = [p for p in module.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(p) for p in own)
        for decays in (True, False):
            params = [p for p in own if (p.ndim > 1) == decays]
            decay = settings.weight_decay if decays else 0.0
            if params:
                facts = {"lr": settings.lr * lr_share, "lr_share": lr_share, "weight_decay": decay}
                groups.append({"params": params, "scheduled": scheduled, **facts})
    return AdamW(groups, lr=settings.lr, betas=settings.betas)


def learning_rate(step: int, total: int, settings: OptimConfig) -> float:
    """Linear warm-up over `warmup_share` of the steps, then a cosine to `final_lr_share` of the peak; `step` counts
    from 0.
    """
    warmup = max(1, round(settings.warmup_share * total))
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr * (settings.final_lr_share + (1 - settings.final_lr_share) * cosine)


def set_learning_rate(optimiser: Optimizer, lr: float) -> None:
    """Give every group its share of `lr`, but for those that keep the rate they have."""
    for group in optimiser.param_groups:
        if group["scheduled"]:
            group["lr"] = lr * group["lr_share"]
