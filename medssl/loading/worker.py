"""A process that reads boxes from the store. It knows neither the plan nor torch: it receives jobs and writes raw
voxels.

`pool.py` starts it with one end of a socket pair; it ends when the other end closes. Voxels travel in anonymous memory
(a file descriptor is passed once, the memory is reused), so nothing is copied on the way and a killed process leaves
nothing behind. Unlike /dev/shm, which containers limit to 64 MB, anonymous memory has no limit but the machine's.
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
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume

Buffer = mmap.mmap | bytearray
# The last bytes of each memory hold the position of the sample that is being read, counted from 1, so that the error
# about a dead worker can name the scan. A message for each sample would fill the socket of a large batch, and both ends
# would wait for each other.
_POSITION = struct.Struct("<q")


@dataclass(frozen=True)
class BatchRequest:
    """What to read for one batch: its samples and, in the same order, their scans."""

    step: int
    samples: tuple[Sample, ...]
    scans: tuple[StoredVolume, ...]
    with_labels: bool


@dataclass(frozen=True)
class Job:
    """A request and the memory to read it into.

    Attributes:
        request: what to read.
        memory: number of the memory.
        is_new: whether the memory's file descriptor follows this message.
        released: numbers of memories that will not be used again.
    """

    request: BatchRequest
    memory: int
    is_new: bool
    released: tuple[int, ...]


@dataclass(frozen=True)
class BatchReady:
    """The memory of the job holds the batch: int16 voxels, then uint8 labels if they were requested."""


@dataclass(frozen=True)
class BatchFailed:
    """A batch could not be read. message: for the user if `is_data_error`, otherwise a traceback."""

    message: str
    is_data_error: bool


def box_shape(sample: Sample) -> Shape3D:
    """(D, H, W) of the box that is read for a sample."""
    d, h, w = (b - a for a, b in zip(sample.start, sample.stop, strict=True))
    return d, h, w


def batch_bytes(request: BatchRequest) -> int:
    """Size of the memory that a batch needs."""
    return _voxel_count(request.samples) * (3 if request.with_labels else 2) + _POSITION.size


def _voxel_count(samples: Sequence[Sample]) -> int:
    return sum(prod(box_shape(sample)) for sample in samples)


def read_batch(
    request: BatchRequest,
    voxels: npt.NDArray[np.int16],
    labels: npt.NDArray[np.uint8] | None,
    *,
    on_sample: Callable[[int], None],
) -> None:
    """Read each sample's box into the batch: one box after the other, each (d, h, w) in C order.

    Args:
        request: what to read.
        voxels: (N,) array to fill.
        labels: (N,) array to fill, or None.
        on_sample: called with the position of each sample, from 1, before it is read, and with 0 at the end.
    """
    first = 0
    for position, (sample, scan) in enumerate(zip(request.samples, request.scans, strict=True), 1):
        on_sample(position)
        shape = box_shape(sample)
        span = slice(first, first + prod(shape))
        # Read into the batch itself: a copy would add a third to the time of reading.
        scan.read(sample.start, sample.stop, out=voxels[span].reshape(shape))
        if labels is not None:
            scan.read_label(sample.start, sample.stop, out=labels[span].reshape(shape))
        first = span.stop
    on_sample(0)


def scan_being_read(memory: mmap.mmap, request: BatchRequest) -> str | None:
    """Id of the scan that the worker is reading; None before the first and after the last."""
    (position,) = _POSITION.unpack_from(memory, len(memory) - _POSITION.size)
    return request.scans[position - 1].scan_id if position else None


def _write_position(memory: mmap.mmap, position: int) -> None:
    _POSITION.pack_into(memory, len(memory) - _POSITION.size, position)


def batch_arrays(memory: Buffer, request: BatchRequest) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8] | None]:
    """(N,) voxels and labels of one batch in its memory; both are views of one array, which keeps `memory` alive."""
    count, content = _voxel_count(request.samples), np.frombuffer(memory, np.uint8)
    return content[: 2 * count].view(np.int16), content[2 * count : 3 * count] if request.with_labels else None


def anonymous_memory(size: int) -> tuple[int, mmap.mmap]:
    """(descriptor, mapping) of new, zeroed memory without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("medssl-batch", os.MFD_CLOEXEC)
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor, mapped(descriptor)


def mapped(descriptor: int) -> mmap.mmap:
    """The memory behind a descriptor."""
    # MAP_POPULATE maps all pages at once, which costs less than thousands of page faults.
    return mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))


def receive_memory(channel: socket.socket) -> mmap.mmap:
    """Map the memory whose descriptor comes next. Raises EOFError if the other end has closed."""
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise EOFError
    try:
        return mapped(descriptors[0])
    finally:
        os.close(descriptors[0])


def serve(descriptor: int) -> None:
    """Run the jobs that arrive at one end of a socket pair until the other end closes."""
    connection = Connection(descriptor)
    # Ctrl-C reaches the whole process group; the main process decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memories: dict[int, mmap.mmap] = {}
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        while True:
            try:
                job: Job = connection.recv()
                if job.is_new:
                    memories[job.memory] = receive_memory(channel)
            except (EOFError, ConnectionResetError):
                return
            for number in job.released:
                memories.pop(number).close()
            _run(job.request, memories[job.memory], connection)


def _run(request: BatchRequest, memory: mmap.mmap, connection: Connection) -> None:
    try:
        voxels, labels = batch_arrays(memory, request)
        read_batch(request, voxels, labels, on_sample=partial(_write_position, memory))
        connection.send(BatchReady())
    except DataError as error:
        connection.send(BatchFailed(str(error), is_data_error=True))
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)
    except Exception:
        # A bug in the reading: it travels to the main process and is raised there with this traceback.
        connection.send(BatchFailed(f"a data worker failed:\n{traceback.format_exc()}", is_data_error=False))
