"""Whether loss and gradient have stayed finite, so that no checkpoint with broken weights replaces a good one."""

from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from medssl.errors import TrainingError

NEVER = 2**62
WHAT_TO_DO = (
    "Lower optim.lr, or use --set loop.precision=32-true if it was 16-mixed. "
    "The last checkpoint, where there is one, is from before: --resume goes on from it."
)


class FiniteWatch:
    """Notes on the device the first step that was not finite; asking costs one synchronisation, noting none.

    Under 16-mixed a step whose gradient is not finite changes no weight: the loss was scaled too far, and the scaler
    leaves the step out.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._skips = getattr(fabric.strategy.precision, "scaler", None) is not None
        self._broken_at = torch.tensor(NEVER, device=fabric.device)

    def note(self, done: int, *, loss: Tensor, grad_norm: Tensor) -> None:
        """Take loss and norm of the step that makes `done`."""
        norm = torch.isfinite(grad_norm.detach())
        finite = torch.isfinite(loss.detach())
        broken = ~finite & norm if self._skips else ~(finite & norm)
        self._broken_at = self._broken_at.minimum(torch.where(broken, done, NEVER))

    def check(self, *, together: bool) -> None:
        """Raise TrainingError when a step was not finite; on every rank where all of them ask `together`."""
        broken_at = self._broken_at
        if together:
            broken_at = cast(Tensor, self._fabric.all_reduce(broken_at.clone(), reduce_op="min"))
        if int(broken_at) < NEVER:
            raise TrainingError(f"The loss or its gradient is not finite at step {int(broken_at)}. {WHAT_TO_DO}")
