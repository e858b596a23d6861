"""What is met seldom enough to be met late: evaluation between two steps, and patches of air."""

import torch
from torch import Tensor

from medssl.conformance.workbench import Workbench
from medssl.errors import PluginError
from medssl.views.region import Region

AIR = -1.0


class Air(Region):
    """A region that holds nothing: every crop has one value throughout."""

    def crop(self, name: str) -> Tensor:
        """(B, C, D, H, W)."""
        return torch.full_like(super().crop(name), AIR)


def evaluation_changes_no_state(bench: Workbench) -> None:
    """In evaluation `forward` leaves every buffer as it was."""
    task = bench.task().eval()
    views = bench.views(task)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with torch.no_grad():
        task(views)
    for name, value in task.state_dict().items():
        if not torch.equal(value, before[name]):
            raise PluginError(
                f"in evaluation (task.eval()) forward changes {name}: drawing a picture or scoring a scan would change "
                "the training. Write to it where self.training is True, or in after_step."
            )


def air_is_survived(bench: Workbench) -> None:
    """A batch of patches that hold one value throughout, such as air, has a finite loss and a finite gradient."""
    task = bench.task()
    region = bench.region(task, kind=Air)
    torch.manual_seed(bench.seed)
    with torch.no_grad():
        views = task.views(region)
    step = task(views)
    advice = (
        "A patch of air has no variance: add a small number before dividing, and before taking roots or logarithms."
    )
    if not step.loss.isfinite().all() or not step.energy.isfinite().all():
        raise PluginError(f"for patches that hold one value throughout, loss or energy is not finite. {advice}")
    if step.loss.requires_grad:
        step.loss.sum().backward()
    for name, p in task.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            raise PluginError(
                f"for patches that hold one value throughout, the gradient of {name} is not finite. {advice}"
            )
