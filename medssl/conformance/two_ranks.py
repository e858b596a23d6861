"""Two processes with half a batch each, compared with one process that has the whole batch."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from medssl.conformance.workbench import Workbench, optimizer_of
from medssl.errors import PluginError
from medssl.plugins.load import import_file
from medssl.pretext.task import PretextTask

BATCH = 4
WORLD_SIZE = 2
TIMEOUT_S = 120.0


def two_ranks_equal_one(bench: Workbench) -> None:
    """Two processes with half a batch each have, on average, the gradient of one process with the whole batch."""
    with TwoRanks(bench) as ranks:
        ranks.compare()


class TwoRanks:
    """The two processes, started on entering. A context manager; `compare` waits for them."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._folder = tempfile.TemporaryDirectory(prefix="medssl-ranks-")
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "TwoRanks":
        for rank in range(WORLD_SIZE):
            job = json.dumps(self._job(rank))
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
            command = [sys.executable, "-c", "from medssl.conformance.two_ranks import one_rank; one_rank()", job]
            self._processes.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self._folder.cleanup()

    def compare(self) -> None:
        """Wait for both and compare. Raises PluginError where they do not equal one process, or each other."""
        failures = []
        for process in self._processes:
            try:
                _, errors = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise PluginError(
                    f"two processes do not finish a step within {TIMEOUT_S:.0f} s: one waits for the other. Call the "
                    "same gathers on every rank, and none where task.training is False."
                ) from None
            if process.returncode:
                failures.append((errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
        if failures:
            # The process that lost its partner reports the connection; the partner reports the cause.
            cause = next(
                (line for line in failures if "gloo" not in line.lower() and "connection" not in line.lower()),
                failures[0],
            )
            raise PluginError(f"a step with two processes fails: {cause}")
        if not all(self._result(rank).exists() for rank in range(WORLD_SIZE)):
            raise PluginError("one of two processes ended before its step did. A task must not end the process.")
        first, second = (torch.load(self._result(rank), weights_only=True) for rank in range(WORLD_SIZE))
        alone = one_step(self.bench, rank=0, world_size=1)
        if alone["loss"] != one_step(self.bench, rank=0, world_size=1, reseed=1)["loss"]:
            return  # forward draws from torch's generator, which ranks do not share: nothing to compare
        _same_gradient(alone["gradient"], first["gradient"])
        differs = [name for name, value in first["state"].items() if not torch.allclose(value, second["state"][name])]
        if differs:
            raise PluginError(
                f"after a step, {differs[0]} differs between two processes. Fill queues, centres and prototypes from "
                "the gathered batch (medssl.pretext.collectives)."
            )

    def _job(self, rank: int) -> dict[str, Any]:
        cls = self.bench.cls
        file = getattr(sys.modules[cls.__module__], "__file__", None)
        return {
            "module": cls.__module__,
            "qualname": cls.__qualname__,
            "file": file if cls.__module__.startswith("medssl_plugin_") or cls.__module__ == "__main__" else None,
            "path": sys.path,
            "options": self.bench.options,
            "patch": self.bench.patch,
            "seed": self.bench.seed,
            "rank": rank,
            "store": str(Path(self._folder.name) / "meet"),
            "result": str(self._result(rank)),
        }

    def _result(self, rank: int) -> Path:
        return Path(self._folder.name) / f"rank-{rank}.pt"


def one_rank() -> None:
    """Run one step in one of the two processes; the entry point of both."""
    job = json.loads(sys.argv[1])
    sys.path[:] = job["path"]
    torch.set_num_threads(1)
    bench = Workbench(_class_of(job), options=job["options"], patch=tuple(job["patch"]), seed=job["seed"])
    dist.init_process_group("gloo", init_method=f"file://{job['store']}", rank=job["rank"], world_size=WORLD_SIZE)
    torch.save(one_step(bench, rank=job["rank"], world_size=WORLD_SIZE), job["result"])
    dist.destroy_process_group()


def _class_of(job: Mapping[str, Any]) -> type[PretextTask]:
    module = import_file(Path(job["file"])).carrier if job["file"] else importlib.import_module(job["module"])
    cls: type[PretextTask] = attrgetter(job["qualname"])(module)
    return cls


def one_step(bench: Workbench, *, rank: int, world_size: int, reseed: int = 0) -> dict[str, Any]:
    """Loss, gradient averaged over ranks, and the state after one step of this rank's share of the batch."""
    task = bench.task()
    region = bench.region(task, batch=BATCH, rank=rank, world_size=world_size)
    views = bench.views(task, region)
    torch.manual_seed(bench.seed + reseed)
    optimizer = optimizer_of(task)
    loss = task(views).loss
    loss.backward()
    for p in task.parameters():
        if p.grad is not None and world_size > 1:
            dist.all_reduce(p.grad)
            p.grad.div_(world_size)
    gradient = torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])
    optimizer.step()
    task.after_step(0, 1)
    state = {name: value.double() for name, value in task.state_dict().items()}
    return {"loss": loss.item(), "gradient": gradient.detach().clone(), "state": state}


def _same_gradient(alone: Tensor, averaged: Tensor) -> None:
    cosine = float(torch.nn.functional.cosine_similarity(alone.double(), averaged.double(), dim=0))
    ratio = float(averaged.double().norm() / alone.double().norm())
    if cosine < 0.999 or abs(ratio - 1) > 0.01:
        raise PluginError(
            f"with two processes the gradient differs (cosine {cosine:.3f}, norm ratio {ratio:.3f}). What looks "
            "across the batch must see all of it: medssl.gather, and no batch normalisation."
        )
