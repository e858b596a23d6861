"""The optimizer and its learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from torch import nn
from torch.optim import AdamW, Optimizer

from medssl.config import OptimConfig


@runtime_checkable
class HasUnscheduledModules(Protocol):
    """A task with modules that the learning-rate schedule leaves alone."""

    def unscheduled_modules(self) -> Iterable[nn.Module]:
        """Modules whose learning rate is its peak at every step: no warm-up, no decay."""


def make_optimizer(modules: Iterable[tuple[nn.Module, float]], settings: OptimConfig) -> Optimizer:
    """AdamW over modules, each with its own scale of the learning rate.

    Vectors and scalars (norms, biases, mask tokens) are not decayed: decay of a norm's scale shrinks features without
    regularising anything (He et al. 2019, arXiv 1812.01187, section 3.1).

    Args:
        modules: Pairs of a module and the factor by which its learning rate differs from `settings.lr`. A parameter
            that lies in two of them belongs to the first. Modules that a task names in `unscheduled_modules` come
            before all others.
        settings: Learning rate, weight decay and betas.

    Returns:
        The optimizer, whose groups carry `lr_scale` and `scheduled` for `set_lr`.
    """
    listed = list(modules)
    tasks = [module for module, _ in listed if isinstance(module, HasUnscheduledModules)]
    constant = [module for task in tasks for module in task.unscheduled_modules()]
    scaled = [*((module, 1.0, False) for module in constant), *((module, scale, True) for module, scale in listed)]
    groups: list[dict[str, Any]] = []
    grouped: set[int] = set()
    for module, lr_scale, scheduled in scaled:
        parameters = [p for p in module.parameters() if p.requires_grad and id(p) not in grouped]
        grouped.update(id(p) for p in parameters)
        rates = {"lr": settings.lr * lr_scale, "lr_scale": lr_scale, "scheduled": scheduled}
        for decays in (True, False):
            members = [p for p in parameters if (p.ndim > 1) == decays]
            if members:
                groups.append({"params": members, "weight_decay": settings.weight_decay if decays else 0.0, **rates})
    return AdamW(groups, lr=settings.lr, betas=settings.betas)


def lr_at_step(step: int, total: int, settings: OptimConfig) -> float:
    """Learning rate of a step, counted from 0: linear warm-up over `warmup_fraction` of the steps, then a cosine to
    `min_lr_ratio` of the peak.
    """
    warmup = max(1, round(settings.warmup_fraction * total))
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr * (settings.min_lr_ratio + (1 - settings.min_lr_ratio) * cosine)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give every scheduled group `lr` times its scale; the others keep the rate they have."""
    for group in optimizer.param_groups:
        if group["scheduled"]:
            group["lr"] = lr * group["lr_scale"]
