"""The one rule of finiteness: when loss and gradient show that the weights are broken or will be."""

from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from medssl.errors import TrainingError

NEVER = 2**62
# The scaler of 16-mixed starts at 2**16 and halves the scale at each step that it skips. After 32 in a row the scale
# is 2**-16, where no gradient of a finite loss overflows: what is not finite then does not come from the scale.
MAX_SKIPPED_STEPS = 32


class FiniteWatch:
    """Finds the first step whose loss or gradient is not finite, so that no broken weights replace a checkpoint.

    Under 16-mixed the scaler skips a step whose gradient is not finite, whatever its loss: no weight changes. That is
    no failure until it has happened `MAX_SKIPPED_STEPS` times in a row. A loss that is not finite while its gradient is
    fails at once, with and without a scaler.

    `note` stays on the device; `check` synchronises with it once.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._can_skip = getattr(fabric.strategy.precision, "scaler", None) is not None
        self._skipped = torch.tensor(0, device=fabric.device)
        self._broken_at = torch.tensor(NEVER, device=fabric.device)

    def note(self, done: int, *, loss: Tensor, grad_norm: Tensor) -> None:
        """Take loss and norm of the step that makes `done`."""
        has_finite_gradient = torch.isfinite(grad_norm.detach())
        broken = ~(has_finite_gradient & torch.isfinite(loss.detach()))
        if self._can_skip:
            self._skipped = torch.where(has_finite_gradient, 0, self._skipped + 1)
            broken = broken & (has_finite_gradient | (self._skipped > MAX_SKIPPED_STEPS))
        self._broken_at = self._broken_at.minimum(torch.where(broken, done, NEVER))

    def check(self, *, on_all_ranks: bool) -> None:
        """Raise TrainingError when a step was broken; on every rank, where all of them call it `on_all_ranks`."""
        broken_at = self._broken_at
        if on_all_ranks:
            broken_at = cast(Tensor, self._fabric.all_reduce(broken_at.clone(), reduce_op="min"))
        if int(broken_at) < NEVER:
            raise TrainingError(
                f"The loss or its gradient is not finite at step {int(broken_at)}. Lower optim.lr, or use "
                "--set loop.precision=32-true if it was 16-mixed. The last checkpoint, where there is one, is from "
                "before: --resume goes on from it."
            )
