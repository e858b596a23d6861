"""The worker processes of a loader: orders go out in turn, batches come back in turn."""

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
    Delivery,
    Errand,
    Failure,
    Order,
    anonymous_memory,
    batch_arrays,
    batch_bytes,
    being_read,
)

# Batches that each worker may be ahead: one being read, one ready.
AHEAD = 2

Voxels = tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8] | None]


class Crew:
    """Worker processes; the batch of step t is read by worker t modulo their number."""

    def __init__(self, workers: int) -> None:
        self.members = [_Member() for _ in range(workers)]

    @property
    def capacity(self) -> int:
        """Batches that may be under way at once."""
        return AHEAD * len(self.members)

    def give(self, order: Order) -> None:
        """Hand an order to the worker whose turn it is."""
        self.members[order.step % len(self.members)].give(order)

    def take(self, step: int) -> Voxels:
        """Wait for the batch of `step`. Raises DataError when a scan cannot be read or the worker has died."""
        return self.members[step % len(self.members)].take(step)

    def close(self) -> None:
        """End all workers."""
        for member in self.members:
            member.close()


def _failure(message: Failure) -> Exception:
    return (
        DataError(message.message) if message.data_error else RuntimeError(f"a data worker failed:\n{message.message}")
    )


@dataclass(frozen=True, eq=False)
class _Memory:
    """Memory that both processes have mapped. Making it ready costs as much as unpacking a batch into it: it is used
    again once the last array on it is gone.
    """

    number: int
    pages: mmap.mmap


class _Member:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        # One thread per worker: they share the cores with the training process.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from medssl.loading.worker import serve; serve({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        self.channel = ours
        self.connection = Connection(os.dup(ours.fileno()))
        self.under_way: deque[tuple[Order, _Memory]] = deque()
        self.free: deque[_Memory] = deque()
        self.memories, self.largest = 0, 0

    def give(self, order: Order) -> None:
        self.largest = max(self.largest, batch_bytes(order))
        forget = self._too_many()
        try:
            if self.free:
                memory = self.free.popleft()
                self.connection.send(Errand(order, memory.number, False, forget))
            else:
                memory = self._send_with_fresh_memory(order, forget)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error
        self.under_way.append((order, memory))

    def _too_many(self) -> tuple[int, ...]:
        """Numbers of free memories that are too small by now, or more than are ever under way at once."""
        free = [self.free.popleft() for _ in range(len(self.free))]  # others may come meanwhile, from any thread
        fitting = [memory for memory in free if len(memory.pages) >= self.largest][:AHEAD]
        self.free.extend(fitting)
        return tuple(memory.number for memory in free if memory not in fitting)

    def _send_with_fresh_memory(self, order: Order, forget: tuple[int, ...]) -> _Memory:
        descriptor, pages = anonymous_memory(self.largest)
        try:
            memory = _Memory(self.memories, pages)
            self.memories += 1
            self.connection.send(Errand(order, memory.number, True, forget))
            socket.send_fds(self.channel, [b"m"], [descriptor])
        finally:
            os.close(descriptor)
        return memory

    def take(self, step: int) -> Voxels:
        try:
            message: Delivery | Failure = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        order, memory = self.under_way.popleft()
        if isinstance(message, Failure):
            raise _failure(message)
        voxels, labels = batch_arrays(memory.pages, order)
        # Tensors on the voxels hold the array beneath, wherever they go.
        weakref.finalize(voxels.base, self._give_back, memory).atexit = False
        return voxels, labels

    def _give_back(self, memory: _Memory) -> None:
        self.free.append(memory)

    def _death(self) -> DataError:
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        scan_ids = [scan_id for order, memory in self.under_way if (scan_id := being_read(memory.pages, order))]
        where = f"while it read scan {scan_ids[0]}" if scan_ids else "between two batches"
        return DataError(
            f"a data worker died ({how}) {where}. If the machine ran out of memory (signal 9), lower loop.workers or "
            "the batch size; else run `medssl doctor --cohort` to check the store."
        )

    def close(self) -> None:
        self.connection.close()
        self.channel.close()
        self.process.kill()
        self.process.wait()
