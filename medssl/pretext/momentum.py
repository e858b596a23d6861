"""Teachers: exponential moving averages of student modules."""

import copy
import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.pretext.projection import BatchNorm

AutoMomentum = Annotated[
    float | Literal["auto"],
    Field(
        ge=0.0,
        lt=1.0,
        description="Weight of the old teacher at each step; rises to 1 along a cosine. auto: an average over a "
        "fortieth of the run, 0.9 to 0.996.",
    ),
]


class Teacher(nn.Module):
    """A copy of a module whose weights are an exponential moving average of the student's; takes no gradient.

    It is saved with the task, so a resumed run has the same teacher. Dropout is always off in it. Batch norms keep
    statistics of the teacher's batches, as in MoCo and DINO; buffers are never copied from the student.

    Args:
        student: the module to copy.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False)
        self.train(self.training)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """What the copied module returns, without gradient."""
        return self.module(*inputs)

    def train(self, mode: bool = True) -> "Teacher":
        """Switch batch norms to `mode`; everything else stays in evaluation."""
        super().train(False)
        self.training = mode
        for module in self.modules():
            if isinstance(module, (_BatchNorm, BatchNorm)):
                module.train(mode)
        return self

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Move every weight to momentum * teacher + (1 - momentum) * student; once per optimizer step."""
        for average, newest in zip(self.module.parameters(), student.parameters(), strict=True):
            average.lerp_(newest.detach().to(average.dtype), 1.0 - momentum)


def first_momentum(steps: int, *, base: AutoMomentum) -> dict[str, float]:
    """Value of `momentum` at the first of `steps`, for `PretextTask.automatic`."""
    return {"momentum": round(momentum_at(0, steps, base=base), 4)}


def momentum_at(step: int, total: int, *, base: AutoMomentum) -> float:
    """Momentum after step `step` of `total`: a cosine from `base` at 0 to 1 at `total` (Grill et al. 2020, BYOL).

    "auto" averages over a fortieth of the run, between 10 and 250 steps (0.9 to 0.996): with the papers' 0.996 the
    teacher of a run of a thousand steps would still be mostly random.
    """
    start = 1.0 - 1.0 / min(250.0, max(10.0, total / 40)) if base == "auto" else float(base)
    return 1.0 - (1.0 - start) * (math.cos(math.pi * step / total) + 1.0) / 2.0
