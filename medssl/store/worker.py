"""A process that reads boxes from the store. It knows neither the plan nor torch: it gets orders and hands over raw
voxels.

Started by `crew.py` with one end of a socket pair; it ends when the other end closes. Voxels travel in
anonymous memory (a file descriptor is passed), so nothing is copied on the way and nothing is left behind by a process
that is killed; unlike /dev/shm, which containers keep at 64 MB, it is limited by nothing but memory.
"""

import mmap
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from medssl.errors import DataError
from medssl.store.crops import Sample
from medssl.store.volumes import StoredVolume

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """What one batch needs: samples and their scans, in step."""

    step: int
    samples: tuple[Sample, ...]
    scans: tuple[StoredVolume, ...]
    with_labels: bool


@dataclass(frozen=True)
class Reading:
    """A worker tells which scan it turns to, so that its death has a name."""

    scan_id: str


@dataclass(frozen=True)
class Delivery:
    """A batch lies in the memory whose descriptor follows: voxels int16, then labels uint8 where asked for, both of
    `shape`.
    """

    step: int
    shape: Shape


@dataclass(frozen=True)
class Failure:
    """A batch could not be read. data_error: the message is for the user; else it is a traceback."""

    step: int
    message: str
    data_error: bool


def padded_shape(samples: Sequence[Sample]) -> Shape:
    """(B, 1, D, H, W) of the largest box of a batch."""
    edges = [[b - a for a, b in zip(sample.start, sample.stop, strict=True)] for sample in samples]
    return len(samples), 1, *(max(column) for column in zip(*edges, strict=True))


def read_batch(
    order: Order,
    voxels: npt.NDArray[np.int16],
    labels: npt.NDArray[np.uint8] | None,
    *,
    reading: Callable[[str], None],
) -> None:
    """Read each sample's box into its row, from the row's origin; what lies beyond the box stays as it was."""
    for row, (sample, scan) in enumerate(zip(order.samples, order.scans, strict=True)):
        reading(scan.scan_id)
        d, h, w = (b - a for a, b in zip(sample.start, sample.stop, strict=True))
        place = voxels[row, 0, :d, :h, :w]
        box = scan.read(sample.start, sample.stop, out=place)
        if box is not place:
            place[...] = box
        if labels is not None:
            labels[row, 0, :d, :h, :w] = scan.read_label(sample.start, sample.stop)


def batch_arrays(
    memory: mmap.mmap, shape: Shape, *, with_labels: bool
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8] | None]:
    """Views of the memory of one batch."""
    count = int(np.prod(shape))
    voxels = np.frombuffer(memory, np.int16, count).reshape(shape)
    return voxels, np.frombuffer(memory, np.uint8, count, offset=2 * count).reshape(shape) if with_labels else None


def anonymous_memory(size: int) -> tuple[int, mmap.mmap]:
    """(descriptor, mapping) of fresh, zeroed memory without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("medssl-batch", os.MFD_CLOEXEC)
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    # Linux makes all pages ready in one go, which costs less than one interruption for each of thousands.
    return descriptor, mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))


def serve(descriptor: int) -> None:
    """Carry out orders that arrive at one end of a socket pair until the other end closes."""
    connection = Connection(descriptor)
    # Ctrl-C reaches the whole group of processes; the main one decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        while True:
            try:
                order = connection.recv()
            except (EOFError, ConnectionResetError):
                return
            _carry_out(order, connection, channel)


def _carry_out(order: Order, connection: Connection, channel: socket.socket) -> None:
    shape = padded_shape(order.samples)
    try:
        descriptor, memory = anonymous_memory(int(np.prod(shape)) * (3 if order.with_labels else 2))
        try:
            voxels, labels = batch_arrays(memory, shape, with_labels=order.with_labels)
            read_batch(order, voxels, labels, reading=lambda scan_id: connection.send(Reading(scan_id)))
            connection.send(Delivery(order.step, shape))
            socket.send_fds(channel, [b"m"], [descriptor])
        finally:
            os.close(descriptor)
    except DataError as error:
        connection.send(Failure(order.step, str(error), data_error=True))
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)
    except Exception:
        # A bug in the reading: it travels to the main process and is raised there with this traceback.
        connection.send(Failure(order.step, traceback.format_exc(), data_error=False))
