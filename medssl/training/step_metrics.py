"""Numbers of the last few steps, held on the device until they are logged."""

import time
from collections.abc import Mapping
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from medssl.pretext.task import Step


class StepMetrics:
    """Collects what a logging step writes: one synchronisation with the device per logging step, none in between."""

    def __init__(self, *, batch_size: int) -> None:
        self._batch_size = batch_size
        self._since = time.perf_counter()
        self._steps = 0
        self._waited_s = 0.0
        self._values: dict[str, Tensor | float] = {}

    def waited(self, seconds: float) -> None:
        """One more step, which waited `seconds` for its data."""
        self._steps += 1
        self._waited_s += seconds

    def add(self, output: Step, *, grad_norm: Tensor | None, lr: float) -> None:
        """Take the numbers of one step."""
        values: dict[str, Tensor | float] = {"train/loss": output.loss.detach(), "train/lr": lr}
        if grad_norm is not None:
            values["train/grad_norm"] = grad_norm.detach()
        values |= {f"train/{name}": term.detach() for name, term in output.terms.items()}
        values["energy/positive"] = output.energy.detach().float().mean()
        if output.negative_energy is not None:
            values["energy/negative"] = output.negative_energy.detach().float().mean()
        # a task whose trivial loss depends on the batch reports it among its terms
        trivial = output.trivial_loss or output.terms.get("trivial_loss")
        if trivial is not None:
            values["train/loss_over_trivial"] = output.loss.detach() / torch.as_tensor(trivial).clamp_min(1e-12)
        if output.embeddings is not None and len(output.embeddings) > 1:
            unit = torch.nn.functional.normalize(output.embeddings.detach().float(), dim=1)
            # sqrt(d) * std: 1 for isotropic features, 0 when all collapse to one (Chen & He 2021, arXiv 2011.10566)
            values["collapse/feature_std"] = unit.std(dim=0).mean() * unit.shape[1] ** 0.5
        self._values = values

    def collect(self, fabric: Fabric) -> dict[str, float]:
        """The numbers by name, as means over all ranks, with speed since the last call; starts anew."""
        numbers = torch.stack(
            [torch.as_tensor(v, dtype=torch.float64, device=fabric.device) for v in self._values.values()]
        )
        means = cast(Tensor, fabric.all_reduce(numbers, reduce_op="mean")).tolist()
        values = dict(zip(self._values, means, strict=True))
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        values["train/volumes_per_s"] = self._steps * self._batch_size / elapsed
        values["train/data_wait_fraction"] = min(1.0, self._waited_s / elapsed)
        self._since, self._steps, self._waited_s = time.perf_counter(), 0, 0.0
        return values


def progress_note(values: Mapping[str, float]) -> str:
    """The numbers of a logging step that a person watches."""
    loss, speed, wait = (values[f"train/{name}"] for name in ("loss", "volumes_per_s", "data_wait_fraction"))
    return f"loss {loss:.4g} · {speed:.3g} volumes/s · data wait {wait:.0%}"
