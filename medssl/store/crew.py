"""The worker processes of a loader: orders go out in turn, batches come back in turn."""

import mmap
import os
import socket
import subprocess
import sys
from collections import deque
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from medssl.errors import DataError
from medssl.store.worker import Delivery, Failure, Order, Reading, batch_arrays

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


class _Member:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        # One thread per worker: they share the cores with the training process.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from medssl.store.worker import serve; serve({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        self.channel = ours
        self.connection = Connection(os.dup(ours.fileno()))
        self.orders: deque[Order] = deque()
        self.last_scan_id: str | None = None

    def give(self, order: Order) -> None:
        self.orders.append(order)
        try:
            self.connection.send(order)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error

    def take(self, step: int) -> Voxels:
        order = self.orders.popleft()
        try:
            while isinstance(message := self.connection.recv(), Reading):
                self.last_scan_id = message.scan_id
            if isinstance(message, Failure):
                raise _failure(message)
            return self._receive(message, order)
        except (EOFError, ConnectionResetError) as error:
            raise self._death() from error

    def _receive(self, delivery: Delivery, order: Order) -> Voxels:
        """Map the memory whose descriptor follows the message; it is freed with the last array on it."""
        _, descriptors, _, _ = socket.recv_fds(self.channel, 1, 1)
        if not descriptors:
            raise EOFError
        try:
            memory = mmap.mmap(descriptors[0], 0)
        finally:
            os.close(descriptors[0])
        return batch_arrays(memory, delivery.shape, with_labels=order.with_labels)

    def _death(self) -> DataError:
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return DataError(
            f"a data worker died ({how}) while it read scan {self.last_scan_id}. If the machine ran out of memory "
            "(signal 9), lower loop.workers or the batch size; else run `medssl doctor --cohort` to check the store."
        )

    def close(self) -> None:
        self.connection.close()
        self.channel.close()
        self.process.kill()
        self.process.wait()
