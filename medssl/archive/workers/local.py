"""Workers on this machine: a thread for each worker process, which is started again when a task kills it."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from medssl.archive.workers.process import ProcessPool
from medssl.archive.workers.task import R, T, TaskResult

_IN_FLIGHT_PER_WORKER = 3


class LocalWorkers:
    """Processes on this machine.

    Args:
        count: Number of processes; 0 runs tasks in this process, one after the other, without isolation.
        worker_bytes: Address space of each process.
    """

    def __init__(self, count: int, *, worker_bytes: int) -> None:
        self.count = count
        self._threads = ThreadPoolExecutor(max(1, count))
        self._processes = ProcessPool(worker_bytes=worker_bytes)

    def __enter__(self) -> "LocalWorkers":
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._processes.stop()
        self._threads.shutdown()

    def run(self, function: Callable[[T], R], tasks: Iterable[T], *, timeout_s: float) -> Iterator[TaskResult[T, R]]:
        """See `Workers.run`."""
        if self.count == 0:
            for task in tasks:
                yield TaskResult(task, function(task), None)
            return
        remaining = iter(tasks)
        in_flight: set[Future[TaskResult[T, R]]] = set()
        while True:
            for task in itertools.islice(remaining, self.count * _IN_FLIGHT_PER_WORKER - len(in_flight)):
                in_flight.add(self._threads.submit(self._processes.run, function, task, timeout_s=timeout_s))
            if not in_flight:
                return
            done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
