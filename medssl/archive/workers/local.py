"""Who runs the work: processes that may die, with time and memory limits per task, and the culprit is known.

`Workers` is what collecting, storing and converting ask for; `LocalWorkers` runs it on this machine,
`cluster.ClusterWorkers` on a Dask cluster. Tasks are idempotent: running one twice leaves what running it once does.
"""

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

T = TypeVar("T")
R = TypeVar("R")
_IN_FLIGHT_PER_WORKER = 3


@dataclass(frozen=True)
class TaskResult(Generic[T, R]):
    """A task and what came of it: a result, or why there is none."""

    task: T
    result: R | None
    failure: Rejected | None


@runtime_checkable
class Workers(Protocol):
    """Run one function over many tasks. What kills or outlasts a worker costs its own task only."""

    def __enter__(self) -> "Workers": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, function: Callable[[T], R], tasks: Iterable[T], *, timeout_s: float) -> Iterator[TaskResult[T, R]]:
        """Results as they come, in any order, with few tasks in flight. A bug in `function` is raised here, with its
        traceback.
        """


class LocalWorkers:
    """Processes on this machine.

    count: processes; 0 runs tasks in this process, one after the other, without isolation. worker_bytes: address
    space of each. The pool starts another worker for one that is gone.
    """

    def __init__(self, count: int, *, worker_bytes: int) -> None:
        self.count, self._worker_bytes = count, worker_bytes
        self._pool: Any = None

    def __enter__(self) -> "LocalWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            if kind is None:
                self._pool.close()
            else:
                self._pool.stop()
            self._pool.join()

    def run(self, function: Callable[[T], R], tasks: Iterable[T], *, timeout_s: float) -> Iterator[TaskResult[T, R]]:
        """As `Workers.run`."""
        if self.count == 0:
            for task in tasks:
                yield TaskResult(task, function(task), None)
            return
        remaining = iter(tasks)
        flying: dict[Future[R], T] = {}
        while True:
            for task in itertools.islice(remaining, self.count * _IN_FLIGHT_PER_WORKER - len(flying)):
                flying[self._started().schedule(function, args=[task], timeout=timeout_s)] = task
            if not flying:
                return
            landed, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in landed:
                yield _landed(future, flying.pop(future), timeout_s)

    def _started(self) -> Any:
        if self._pool is None:
            from pebble import ProcessPool

            context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
            self._pool = ProcessPool(
                max_workers=self.count,
                context=context,
                initializer=_begin,
                initargs=(self._worker_bytes, {**os.environ}),
            )
        return self._pool


def _begin(worker_bytes: int, environment: Mapping[str, str]) -> None:
    """In a new worker. The server that forks them keeps the environment of its own start, so that credentials set
    since, in a notebook say, would not reach them.
    """
    os.environ.update(environment)
    limit_process(worker_bytes)


def _landed(future: "Future[R]", task: T, timeout_s: float) -> TaskResult[T, R]:
    from pebble import ProcessExpired

    try:
        return TaskResult(task, future.result(), None)
    except (FutureTimeout, TimeoutError):
        return TaskResult(task, None, timed_out(timeout_s))
    except ProcessExpired as death:
        return TaskResult(task, None, worker_died(death.exitcode))


def timed_out(timeout_s: float) -> Rejected:
    """Why a task that outlasted its time has no result."""
    return Rejected(Reason.TIMEOUT, f"it took longer than {timeout_s:g} s")


def worker_died(exit_code: int | None) -> Rejected:
    """Why a task whose worker is gone has no result."""
    return Rejected(Reason.DECODER_CRASH, f"the worker died (exit code {exit_code})")


def limit_process(worker_bytes: int) -> None:
    """Limits of a worker process: memory, no core dumps; Ctrl-C is the parent's to handle."""
    import resource
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = worker_bytes if hard == resource.RLIM_INFINITY else min(worker_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
