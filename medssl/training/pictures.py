"""Contact sheets of the same few regions, drawn now and then in a training."""

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from medssl.loading.loader import batch_at
from medssl.runs.contact_sheet import contact_sheet
from medssl.runs.run import Run
from medssl.training.step import seed_step
from medssl.training.trainee import Trainee, Training
from medssl.views.region import Region

CASES = 4


@torch.no_grad()
def draw_pictures(training: Training, run: Run, *, step: int, fabric: Fabric) -> None:
    """Draw the pictures of the training's first batch as the module sees it now, and leave the module as it was.

    The batch at step 0 is a pure function of the seed: the same crops, views and masks each time. Every rank computes
    it, since a task may talk to the other ranks in its forward pass; rank 0 writes.
    """
    module, seed = training.module, training.loop.seed
    trainee = cast(Trainee, module)
    region = Region(batch_at(training.plan, with_labels=training.with_labels), device=fabric.device, seed=seed)
    was_training, rng = module.training, torch.get_rng_state()
    seed_step(seed, 0, 0)
    module.eval()
    try:
        pictures = module(trainee.views(region)).pictures
    finally:
        module.train(was_training)
        torch.set_rng_state(rng)
    if not pictures or not fabric.is_global_zero:
        return
    volumes = {name: as_array(volume[:CASES, 0]) for name, volume in pictures.items()}
    rows = [
        {name: np.asarray(volume[i]) for name, volume in volumes.items()}
        for i in range(len(next(iter(volumes.values()))))
    ]
    run.picture("views", step, contact_sheet(rows))


def as_array(volume: Tensor) -> npt.NDArray[np.generic]:
    """(B, D, H, W) for a contact sheet: class values stay integers, which are drawn as labels; the rest is float32."""
    return (volume if not volume.is_floating_point() else volume.float()).cpu().numpy()
