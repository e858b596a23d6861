"""The same work on a Dask cluster: every worker hands its task to a process of its own, which may die.

So a Dask worker outlives what kills a decoder, time and memory are limited as on one machine, and the culprit is named
in the same words. What Dask itself loses, a machine or a worker, it runs again elsewhere.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from medssl.archive.workers.local import TaskResult, worker_died
from medssl.archive.workers.process import TaskProcess
from medssl.errors import DataError, UsageError

T = TypeVar("T")
R = TypeVar("R")
_IN_FLIGHT_PER_THREAD = 3
_PATIENCE_S = 15


class ClusterWorkers:
    """Threads of the Dask workers behind a scheduler, each with a process of its own.

    address: of the scheduler, such as tcp://node1:8786. worker_bytes: address space of each process. must_see: paths
    that every worker must find, because voxels are read and written there.

    Raises UsageError where Dask is not installed or the address is none; DataError where the scheduler does not
    answer, has no workers, or a worker runs another medssl or does not see a path.
    """

    def __init__(self, address: str, *, worker_bytes: int, must_see: Iterable[Path]) -> None:
        self._address, self._worker_bytes = address, worker_bytes
        self._needs = (_version(), tuple(sorted(must_see)))
        self._client = _connected(address)

    def __enter__(self) -> "ClusterWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A scheduler that is gone has been reported before; its workers' processes end with them.
        if kind is None:
            self._client.run(_dismiss, self._worker_bytes)
        self._client.close()

    def run(self, function: Callable[[T], R], tasks: Iterable[T], *, timeout_s: float) -> Iterator[TaskResult[T, R]]:
        """As `Workers.run`. Raises DataError when the cluster is lost on the way."""
        from distributed import as_completed

        apart = partial(_apart, self._worker_bytes, self._needs, function, timeout_s)
        remaining, flying = iter(tasks), dict[Any, T]()
        landing = as_completed(loop=self._client.loop)
        while True:
            for task in itertools.islice(remaining, max(0, self._most_in_flight() - len(flying))):
                # The key is random: a hash of the task would be the same work twice to Dask, and its name a path's.
                future = self._client.submit(apart, task, pure=False)
                flying[future] = task
                landing.add(future)
            if not flying:
                return
            future = next(landing)
            yield self._landed(future, flying.pop(future))

    def _most_in_flight(self) -> int:
        """A few tasks for each thread there is now; workers come and go."""
        return _IN_FLIGHT_PER_THREAD * max(1, int(sum(self._client.nthreads().values())))

    def _landed(self, future: Any, task: T) -> TaskResult[T, R]:
        from concurrent.futures import CancelledError

        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            done: TaskResult[T, R] = future.result()
        except KilledWorker:
            # Dask has lost more workers over this task than distributed.scheduler.allowed-failures lets it.
            return TaskResult(task, None, worker_died(None))
        except (CancelledError, CommClosedError) as error:
            raise DataError(
                f"the Dask scheduler at {self._address} was lost. Run the same command again; it goes on where it was."
            ) from error
        return done


def _connected(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--scheduler needs Dask. Install it with: pip install 'medssl[cluster]'") from error
    if not re.fullmatch(r"\w+://\S+:\d+", address):
        raise UsageError(f"--scheduler {address} is no address of a scheduler. Write it like tcp://node1:8786.")
    try:
        client = Client(address, timeout=_PATIENCE_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"no Dask scheduler answers at {address} within {_PATIENCE_S} s. Check the address, and start one with: "
            "dask scheduler"
        ) from error
    try:
        client.wait_for_workers(1, timeout=_PATIENCE_S)
    except TimeoutError as error:
        client.close()
        raise DataError(
            f"the Dask scheduler at {address} has no workers. Start some with: dask worker {address}"
        ) from error
    return client


# On the Dask worker


def _apart(
    worker_bytes: int, needs: tuple[str, tuple[Path, ...]], function: Callable[[T], R], timeout_s: float, task: T
) -> TaskResult[T, R]:
    """Run a task in a process that is kept for the next one, unless this one kills it."""
    _check_worker(*needs)
    idle = _idle(worker_bytes)
    try:
        process = idle.get_nowait()
    except Empty:
        process = TaskProcess(worker_bytes=worker_bytes)
    try:
        return process.run(function, task, timeout_s=timeout_s)
    finally:
        if process.alive:
            idle.put(process)


@cache
def _idle(worker_bytes: int) -> "SimpleQueue[TaskProcess]":
    """Processes of this Dask worker that wait for a task: never more than it has threads."""
    return SimpleQueue()


@cache
def _check_worker(version: str, must_see: tuple[Path, ...]) -> None:
    """Raise DataError where this worker would give other results than the machine that asks."""
    import socket

    here = socket.gethostname()
    if _version() != version:
        raise DataError(f"the Dask worker on {here} has medssl {_version()}, not {version}. Install the same one.")
    for path in must_see:
        if not path.exists():
            raise DataError(
                f"the Dask worker on {here} does not see {path}. Mount the archive and the cohort under the same paths "
                "on every machine."
            )


def _dismiss(worker_bytes: int) -> None:
    """End the processes that wait."""
    idle = _idle(worker_bytes)
    while not idle.empty():
        idle.get_nowait().close()


def _version() -> str:
    from importlib.metadata import version

    return version("medssl")
