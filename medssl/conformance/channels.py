"""Images of several channels: sequences of one study, or a scan and a map of it."""

import torch
from torch import Tensor

from medssl.conformance.step_rules import check_step
from medssl.conformance.workbench import Workbench
from medssl.errors import PluginError
from medssl.views.region import Region

CHANNELS = 2


class TwoChannels(Region):
    """A region whose crops carry a second channel, another contrast of the first."""

    def crop(self, name: str) -> Tensor:
        """(B, 2, D, H, W)."""
        first = super().crop(name)
        return torch.cat([first, 1.0 - 0.5 * first.abs()], dim=1)


def several_channels_work(bench: Workbench) -> None:
    """Images of two channels are as good as images of one, and both are looked at."""
    task = bench.task(channels=CHANNELS)
    region = bench.region(task, kind=TwoChannels)
    advice = "Take the number of channels from encoder.description.in_channels, and reduce over all axes but the first."
    try:
        torch.manual_seed(bench.seed)
        with torch.no_grad():
            views = task.views(region)
        step = task(views)
        check_step(step, batch=2, sizes=[tuple(view.shape[2:]) for view in views.values() if view.ndim == 5])
        step.loss.backward()
    except (RuntimeError, ValueError, IndexError, PluginError) as error:
        raise PluginError(f"with images of two channels it fails: {error} {advice}") from error
    first = next(p for p in task.encoder.parameters() if p.ndim == 5)  # the weights that read the image
    if first.grad is None or (first.grad.abs().amax(dim=(0, 2, 3, 4)) == 0).any():
        raise PluginError(f"of images with two channels only one reaches the encoder. {advice}")
