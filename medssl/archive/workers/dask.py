"""Workers on a Dask cluster: every Dask worker hands its tasks to a process of its own, which may die.

So a Dask worker survives what kills a decoder, time and memory are limited as on one machine, and the culprit is named
in the same words. Tasks of a machine or worker that is lost run again elsewhere.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from medssl.archive.workers.process import ProcessPool
from medssl.archive.workers.task import R, T, TaskResult, worker_died
from medssl.errors import DataError, UsageError

_IN_FLIGHT_PER_THREAD = 3
_CONNECT_TIMEOUT_S = 15


class ClusterWorkers:
    """Threads of the Dask workers behind a scheduler, each with a process of its own.

    Args:
        address: Of the scheduler, such as tcp://node1:8786.
        worker_bytes: Address space of each process.
        must_see: Paths that every worker must find, because voxels are read and written there.

    Raises:
        UsageError: Dask is not installed, or the address has the wrong form.
        DataError: The scheduler does not answer, has no workers, or a worker runs another medssl or does not see a
            path.
    """

    def __init__(self, address: str, *, worker_bytes: int, must_see: Iterable[Path]) -> None:
        self._address, self._worker_bytes = address, worker_bytes
        self._needs = (_version(), tuple(sorted(must_see)))
        self._client = _connect(address)

    def __enter__(self) -> "ClusterWorkers":
        return self

    def __exit__(self, *exception: object) -> None:
        # A scheduler that is gone has been reported before; its workers' processes end with them.
        if exception[0] is None:
            self._client.run(_stop_idle_processes, self._worker_bytes)
        self._client.close()

    def run(self, function: Callable[[T], R], tasks: Iterable[T], *, timeout_s: float) -> Iterator[TaskResult[T, R]]:
        """See `Workers.run`. Raises DataError when the cluster is lost on the way."""
        from distributed import as_completed

        isolated = partial(_run_isolated, self._worker_bytes, self._needs, function, timeout_s)
        remaining, in_flight = iter(tasks), dict[Any, T]()
        completed = as_completed(loop=self._client.loop)
        while True:
            for task in itertools.islice(remaining, max(0, self._max_in_flight() - len(in_flight))):
                # pure=False makes the key random. Otherwise it hashes the task: a second attempt would be the first one
                # to Dask, and its key would follow from a path.
                future = self._client.submit(isolated, task, pure=False)
                in_flight[future] = task
                completed.add(future)
            if not in_flight:
                return
            future = next(completed)
            yield self._result(future, in_flight.pop(future))

    def _max_in_flight(self) -> int:
        """A few tasks for each thread there is now; workers come and go."""
        return _IN_FLIGHT_PER_THREAD * max(1, int(sum(self._client.nthreads().values())))

    def _result(self, future: Any, task: T) -> TaskResult[T, R]:
        from concurrent.futures import CancelledError

        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            result: TaskResult[T, R] = future.result()
        except KilledWorker:
            # Dask has lost more workers over this task than distributed.scheduler.allowed-failures lets it.
            return TaskResult(task, None, worker_died(None))
        except (CancelledError, CommClosedError) as error:
            raise DataError(
                f"the Dask scheduler at {self._address} was lost. Run the same command again: it continues where it "
                "stopped."
            ) from error
        return result


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--scheduler needs Dask. Install it with: pip install 'medssl[cluster]'") from error
    if not re.fullmatch(r"\w+://\S+:\d+", address):
        raise UsageError(f"--scheduler {address} is not the address of a scheduler. Write it like tcp://node1:8786.")
    try:
        client = Client(address, timeout=_CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"no Dask scheduler answers at {address} within {_CONNECT_TIMEOUT_S} s. Check the address, and start one "
            "with: dask scheduler"
        ) from error
    try:
        client.wait_for_workers(1, timeout=_CONNECT_TIMEOUT_S)
    except TimeoutError as error:
        client.close()
        raise DataError(
            f"the Dask scheduler at {address} has no workers. Start some with: dask worker {address}"
        ) from error
    return client


# On the Dask worker


def _run_isolated(
    worker_bytes: int, needs: tuple[str, tuple[Path, ...]], function: Callable[[T], R], timeout_s: float, task: T
) -> TaskResult[T, R]:
    """Run a task in a process of its own. A Dask worker never has more of them than threads."""
    _check_worker(*needs)
    return _processes(worker_bytes).run(function, task, timeout_s=timeout_s)


@cache
def _processes(worker_bytes: int) -> ProcessPool:
    return ProcessPool(worker_bytes=worker_bytes)


@cache
def _check_worker(version: str, must_see: tuple[Path, ...]) -> None:
    """Raise DataError where this worker would give other results than the machine that asks for them."""
    import socket

    host = socket.gethostname()
    if _version() != version:
        raise DataError(
            f"the Dask worker on {host} has medssl {_version()}, not {version}. Install the same one on every machine."
        )
    for path in must_see:
        if not path.exists():
            raise DataError(
                f"the Dask worker on {host} does not see {path}. Mount the archive and the cohort under the same paths "
                "on every machine."
            )


def _stop_idle_processes(worker_bytes: int) -> None:
    """End the processes that wait. Those at work are of another ingest on the same cluster."""
    _processes(worker_bytes).stop_idle()


def _version() -> str:
    from importlib.metadata import version

    return version("medssl")
