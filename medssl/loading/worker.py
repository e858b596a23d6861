"""A process that reads boxes from the store. It knows neither the plan nor torch: it gets orders and hands over raw
voxels.

Started by `crew.py` with one end of a socket pair; it ends when the other end closes. Voxels travel in
anonymous memory (a file descriptor is passed once, the memory is used again), so nothing is copied on the way and
nothing is left behind by a process that is killed; unlike /dev/shm, which containers keep at 64 MB, it is limited by
nothing but memory.
"""

import mmap
import os
import signal
import socket
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from medssl.errors import DataError
from medssl.loading.crops import Sample
from medssl.store.volumes import StoredVolume

Buffer = mmap.mmap | bytearray
# At the end of each memory stands which sample is being read, counted from 1, so that a worker's death has a name. A
# message for each would fill the socket of a large batch, and both ends would wait for each other.
_NOTE = struct.Struct("<q")


@dataclass(frozen=True)
class Order:
    """What one batch needs: samples and their scans, in step."""

    step: int
    samples: tuple[Sample, ...]
    scans: tuple[StoredVolume, ...]
    with_labels: bool


@dataclass(frozen=True)
class Errand:
    """An order and the memory to carry it out in.

    memory: number of the memory; fresh: its descriptor follows the message. forget: numbers that will not come again.
    """

    order: Order
    memory: int
    fresh: bool
    forget: tuple[int, ...]


@dataclass(frozen=True)
class Delivery:
    """A batch lies in the memory of its errand: voxels int16, then labels uint8 where asked for."""

    step: int


@dataclass(frozen=True)
class Failure:
    """A batch could not be read. data_error: the message is for the user; else it is a traceback."""

    step: int
    message: str
    data_error: bool


def box_shape(sample: Sample) -> tuple[int, int, int]:
    """(D, H, W) of what is read for a sample."""
    d, h, w = (b - a for a, b in zip(sample.start, sample.stop, strict=True))
    return d, h, w


def batch_bytes(order: Order) -> int:
    """Size of the memory that a batch needs."""
    return _voxel_count(order.samples) * (3 if order.with_labels else 2) + _NOTE.size


def _voxel_count(samples: Sequence[Sample]) -> int:
    return sum(prod(box_shape(sample)) for sample in samples)


def read_batch(
    order: Order,
    voxels: npt.NDArray[np.int16],
    labels: npt.NDArray[np.uint8] | None,
    *,
    reading: Callable[[int], None],
) -> None:
    """Read each sample's box into its place: the boxes lie one after the other, each (d, h, w) in C order.

    reading: told the number of each sample, from 1, before it is read, and 0 at the end.
    """
    first = 0
    for number, (sample, scan) in enumerate(zip(order.samples, order.scans, strict=True), 1):
        reading(number)
        shape = box_shape(sample)
        place = slice(first, first + prod(shape))
        # Read straight into place: a copy would cost a third of the reading.
        scan.read(sample.start, sample.stop, out=voxels[place].reshape(shape))
        if labels is not None:
            scan.read_label(sample.start, sample.stop, out=labels[place].reshape(shape))
        first = place.stop
    reading(0)


def being_read(memory: mmap.mmap, order: Order) -> str | None:
    """The scan that the worker at this order has turned to; None before the first and after the last."""
    (number,) = _NOTE.unpack_from(memory, len(memory) - _NOTE.size)
    return order.scans[number - 1].scan_id if number else None


def _note(memory: mmap.mmap, number: int) -> None:
    _NOTE.pack_into(memory, len(memory) - _NOTE.size, number)


def batch_arrays(memory: Buffer, order: Order) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8] | None]:
    """(N,) voxels and labels of one batch in its memory; both rest on one array, which `memory` outlives."""
    count, whole = _voxel_count(order.samples), np.frombuffer(memory, np.uint8)
    return whole[: 2 * count].view(np.int16), whole[2 * count : 3 * count] if order.with_labels else None


def anonymous_memory(size: int) -> tuple[int, mmap.mmap]:
    """(descriptor, mapping) of fresh, zeroed memory without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("medssl-batch", os.MFD_CLOEXEC)
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor, mapped(descriptor)


def mapped(descriptor: int) -> mmap.mmap:
    """The memory behind a descriptor."""
    # Linux makes all pages ready in one go, which costs less than one interruption for each of thousands.
    return mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))


def receive_memory(channel: socket.socket) -> mmap.mmap:
    """Map the memory whose descriptor comes next. Raises EOFError where the other end has closed."""
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise EOFError
    try:
        return mapped(descriptors[0])
    finally:
        os.close(descriptors[0])


def serve(descriptor: int) -> None:
    """Carry out errands that arrive at one end of a socket pair until the other end closes."""
    connection = Connection(descriptor)
    # Ctrl-C reaches the whole group of processes; the main one decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memories: dict[int, mmap.mmap] = {}
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        while True:
            try:
                errand: Errand = connection.recv()
                if errand.fresh:
                    memories[errand.memory] = receive_memory(channel)
            except (EOFError, ConnectionResetError):
                return
            for number in errand.forget:
                memories.pop(number).close()
            _carry_out(errand.order, memories[errand.memory], connection)


def _carry_out(order: Order, memory: mmap.mmap, connection: Connection) -> None:
    try:
        voxels, labels = batch_arrays(memory, order)
        read_batch(order, voxels, labels, reading=partial(_note, memory))
        connection.send(Delivery(order.step))
    except DataError as error:
        connection.send(Failure(order.step, str(error), data_error=True))
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)
    except Exception:
        # A bug in the reading: it travels to the main process and is raised there with this traceback.
        connection.send(Failure(order.step, traceback.format_exc(), data_error=False))
