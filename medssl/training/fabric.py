"""Devices, processes and precision: Lightning Fabric, set up for a training."""

import atexit
import os
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from medssl.config import LoopConfig


def start_fabric(settings: LoopConfig) -> Fabric:
    """Start the processes and set up strategy and precision for these settings."""
    precision = chosen_precision(settings)
    devices = settings.devices
    if devices == "auto" and not torch.cuda.is_available():
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # as many processes as torchrun has started
    machines = int(os.environ.get("GROUP_WORLD_SIZE") or os.environ.get("SLURM_NNODES") or 1)  # of torchrun, or SLURM
    strategy = "ddp" if machines > 1 or (isinstance(devices, int) and devices > 1) else "auto"
    fabric = Fabric(
        accelerator="auto", devices=devices, num_nodes=machines, strategy=strategy, **precision_of(precision)
    )
    fabric.launch()
    atexit.register(leave_process_group)
    return fabric


def leave_process_group() -> None:
    """Leave the group of processes, where there is one, before Python ends: gloo's threads release Python objects of
    the last exchange, and a release after the interpreter's end aborts the process.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def chosen_precision(settings: LoopConfig) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Precision as set; automatic means bf16 on a GPU that has it, which needs no scaling of the loss, else 32 bits."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def precision_of(name: str) -> dict[str, Any]:
    """Arguments of Fabric for this precision. Mixed precision leaves views as they are: Fabric's own would round them
    to 16 bits, targets and coordinates of points included; autocast converts what convolutions and products take.
    """
    if name not in ("bf16-mixed", "16-mixed"):
        return {"precision": name}
    from lightning_fabric.plugins import MixedPrecision

    class ViewsAsTheyAre(MixedPrecision):  # type: ignore[misc]  # untyped in its distribution
        def convert_input(self, data: Any) -> Any:
            return data

    return {"plugins": [ViewsAsTheyAre(name, "cuda" if torch.cuda.is_available() else "cpu")]}


def worker_count(settings: LoopConfig) -> int:
    """Data workers as set; automatic means up to 4 beside a GPU and none without one, where they would take
    cores from the network.
    """
    if settings.workers != "auto":
        return int(settings.workers)
    return 4 if torch.cuda.is_available() else 0
