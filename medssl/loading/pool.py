"""The worker processes of a loader: requests go out in turn, batches come back in turn."""

import mmap
import os
import socket
import subprocess
import sys
import weakref
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from medssl.errors import DataError
from medssl.loading.worker import (
    BatchFailed,
    BatchReady,
    BatchRequest,
    Job,
    anonymous_memory,
    batch_arrays,
    batch_bytes,
    scan_being_read,
)

# Batches that each worker has in flight: one being read, one ready. torch's DataLoader has the same default.
PREFETCH_FACTOR = 2

Voxels = tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8] | None]


class WorkerPool:
    """Worker processes; worker t modulo their number reads the batch of step t."""

    def __init__(self, workers: int) -> None:
        self.workers = [_Worker() for _ in range(workers)]

    @property
    def capacity(self) -> int:
        """Batches that may be in flight at once."""
        return PREFETCH_FACTOR * len(self.workers)

    def submit(self, request: BatchRequest) -> None:
        """Send a request to the worker whose turn it is."""
        self.workers[request.step % len(self.workers)].submit(request)

    def result(self, step: int) -> Voxels:
        """Wait for the batch of `step`. Raises DataError if a scan cannot be read or the worker has died."""
        return self.workers[step % len(self.workers)].result(step)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()


@dataclass(frozen=True, eq=False)
class _Memory:
    """Memory that both processes have mapped. Mapping it costs as much as unpacking a batch into it, so it is reused
    once the last array on it is gone.
    """

    number: int
    pages: mmap.mmap


class _Worker:
    def __init__(self) -> None:
        parent_end, child_end = socket.socketpair()
        # One thread per worker: they share the cores with the training process.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
        with child_end:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from medssl.loading.worker import serve; serve({child_end.fileno()})"],
                pass_fds=[child_end.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        self.channel = parent_end
        self.connection = Connection(os.dup(parent_end.fileno()))
        self.in_flight: deque[tuple[BatchRequest, _Memory]] = deque()
        self.free: deque[_Memory] = deque()
        self.memories, self.largest_bytes = 0, 0

    def submit(self, request: BatchRequest) -> None:
        self.largest_bytes = max(self.largest_bytes, batch_bytes(request))
        released = self._release_surplus()
        try:
            if self.free:
                memory = self.free.popleft()
                self.connection.send(Job(request, memory.number, False, released))
            else:
                memory = self._send_with_new_memory(request, released)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error
        self.in_flight.append((request, memory))

    def _release_surplus(self) -> tuple[int, ...]:
        """Numbers of free memories that have become too small, or are more than can be in flight at once."""
        free = [self.free.popleft() for _ in range(len(self.free))]  # any thread may append more meanwhile
        fitting = [memory for memory in free if len(memory.pages) >= self.largest_bytes][:PREFETCH_FACTOR]
        self.free.extend(fitting)
        return tuple(memory.number for memory in free if memory not in fitting)

    def _send_with_new_memory(self, request: BatchRequest, released: tuple[int, ...]) -> _Memory:
        descriptor, pages = anonymous_memory(self.largest_bytes)
        try:
            memory = _Memory(self.memories, pages)
            self.memories += 1
            self.connection.send(Job(request, memory.number, True, released))
            socket.send_fds(self.channel, [b"m"], [descriptor])
        finally:
            os.close(descriptor)
        return memory

    def result(self, step: int) -> Voxels:
        try:
            message: BatchReady | BatchFailed = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        request, memory = self.in_flight.popleft()
        if isinstance(message, BatchFailed):
            if message.is_data_error:
                raise DataError(message.message)
            raise RuntimeError(message.message)
        voxels, labels = batch_arrays(memory.pages, request)
        # The memory is free when its last user is gone. Tensors and views of the voxels all keep `voxels.base` alive,
        # so its finalizer is the moment; counting batches would be wrong as soon as a task keeps a view for longer.
        weakref.finalize(voxels.base, self.free.append, memory).atexit = False
        return voxels, labels

    def _death(self) -> DataError:
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        reading = (scan_being_read(memory.pages, request) for request, memory in self.in_flight)
        scan_id = next(filter(None, reading), None)
        where = f"while it read scan {scan_id}" if scan_id else "between two batches"
        return DataError(
            f"a data worker died ({how}) {where}. If the machine ran out of memory (signal 9), lower loop.workers or "
            "the batch size; otherwise run `medssl doctor --cohort` to check the store."
        )

    def close(self) -> None:
        self.connection.close()
        self.channel.close()
        self.process.kill()
        self.process.wait()
