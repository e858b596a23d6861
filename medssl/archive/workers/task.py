"""Tasks for worker processes, and what comes back.

`Workers` is what scanning, storing and converting need. `local.LocalWorkers` runs tasks on this machine,
`dask.ClusterWorkers` on a Dask cluster. Tasks are idempotent: running one twice has the effect of running it once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class TaskResult(Generic[T, R]):
    """A task with its result, or the reason why it has none."""

    task: T
    result: R | None
    failure: Rejected | None


@runtime_checkable
class Workers(Protocol):
    """Run one function over many tasks. What kills a worker, or takes too long, costs its own task only."""

    def __enter__(self) -> "Workers": ...

    def __exit__(self, *exception: object) -> None: ...

    def run(self, function: Callable[[T], R], tasks: Iterable[T], *, timeout_s: float) -> Iterator[TaskResult[T, R]]:
        """Results in the order in which they are ready, with few tasks in flight.

        An exception that `function` raises is raised here, with the worker's traceback as a note.
        """


def timed_out(timeout_s: float) -> Rejected:
    """Why a task that took too long has no result."""
    return Rejected(Reason.TIMEOUT, f"it took longer than {timeout_s:g} s")


def worker_died(exit_code: int | None) -> Rejected:
    """Why a task whose worker is gone has no result."""
    return Rejected(Reason.DECODER_CRASH, f"the worker died (exit code {exit_code})")
