"""Region batches in the order of the plan, prefetched by worker processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl.loading.placement import is_exact
from medssl.loading.plan import BatchPlan
from medssl.loading.pool import WorkerPool
from medssl.loading.prefetch import prefetch
from medssl.loading.worker import BatchRequest, batch_arrays, batch_bytes, read_batch
from medssl.shapes import Shape3D

# torch.cuda.Stream and torch.cuda.Event, which cannot be faked on a machine without a GPU if named as types.
Stream = Any
Event = Any


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """Raw voxels of one batch and what is needed to make views of them.

    All tensors are on the host, except voxels and labels that `sent` has moved to a GPU.

    Attributes:
        step: number of the batch.
        numbers: sample numbers in the stream.
        scan_ids: per sample.
        voxels: (N,) int16, the samples' boxes one after the other, each (d, h, w) in C order; `boxes` separates them.
        labels: the same, uint8; None if they were not requested.
        box_shape: (B, 3) int64 voxels of each box.
        start: (B, 3) int64 voxel of the scan where each box starts.
        scan_shape: (B, 3) int64 voxels of each whole scan.
        scale: (B,) float32; physical value = voxel * scale + offset.
        offset: (B,) float32.
        normalisation: (B, 4) float32 low, high, mean, std in physical units.
        crops: per name (B, 3, 4) float32 matrices, patch voxel to box voxel.
        sizes: per name the (D, H, W) of the patch.
        exact: per name (B,) bool, true where the patch is a window of whole voxels, which can be sliced.
        spacing_mm: (B, 3) float32 along D, H, W.
        arrival: CUDA event of the copy that `sent` started.
    """

    step: int
    numbers: tuple[int, ...]
    scan_ids: tuple[str, ...]
    voxels: Tensor
    labels: Tensor | None
    box_shape: Tensor
    start: Tensor
    scan_shape: Tensor
    scale: Tensor
    offset: Tensor
    normalisation: Tensor
    crops: dict[str, Tensor]
    sizes: dict[str, Shape3D]
    exact: dict[str, np.ndarray]
    spacing_mm: Tensor
    arrival: Event | None = None

    def boxes(self, flat: Tensor) -> list[Tensor]:
        """Per sample the (d, h, w) box in `flat`, which is `voxels` or `labels`, or a copy of them on a device."""
        shapes = [tuple(shape) for shape in self.box_shape.tolist()]
        parts = torch.split(flat, [prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def pinned(self) -> "RegionBatch":
        """The batch with its voxels in page-locked memory, from which a copy to a GPU does not block."""
        return self._with(lambda tensor: tensor.pin_memory())

    def sent(self, device: torch.device, stream: Stream) -> "RegionBatch":
        """The batch on its way to a GPU: copied on `stream` while other streams compute. Call `received` before use.

        torch's allocator does not reuse the page-locked memory before the copy is done.
        """
        pinned = self.pinned()
        with torch.cuda.stream(stream):
            moved = pinned._with(lambda tensor: tensor.to(device, non_blocking=True))
            arrival: Event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch publishes none
            arrival.record(stream)
        return replace(moved, arrival=arrival)

    def received(self, device: torch.device) -> "RegionBatch":
        """The batch for the current stream of `device`, which waits for the copy; the host does not."""
        if self.arrival is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self.arrival)
            for tensor in [self.voxels] if self.labels is None else [self.voxels, self.labels]:
                # Allocated on the copying stream, whose allocator would reuse the memory while this one still reads it.
                tensor.record_stream(stream)
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def _with(self, change: Callable[[Tensor], Tensor]) -> "RegionBatch":
        return replace(self, voxels=change(self.voxels), labels=None if self.labels is None else change(self.labels))


class RegionLoader:
    """Batches of `plan` from `first_step` on, without end; the same bytes for any number of workers.

    A context manager: leaving it ends the workers. Iterate once. A scan that cannot be read, or a worker that dies,
    ends the iteration with a DataError that names the scan.

    Args:
        plan: which boxes each batch holds.
        workers: processes that read; 0 reads in the calling process.
        first_step: number of the first batch.
        rank: which part of every global batch is read.
        world_size: number of ranks.
        with_labels: whether labels are read beside the voxels.
        device: where the batches are used; for a GPU a thread copies each batch while the step before computes.
    """

    def __init__(
        self,
        plan: BatchPlan,
        *,
        workers: int,
        first_step: int,
        rank: int = 0,
        world_size: int = 1,
        with_labels: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.plan, self.with_labels, self.rank, self.world_size = plan, with_labels, rank, world_size
        self.first_step, self.workers = first_step, workers
        self.device = device or torch.device("cpu")
        self._pool: WorkerPool | None = None
        # Only the plan needs sampled label voxels and masks; they would travel to a worker with every batch.
        self._scans = {scan.scan_id: replace(scan, class_voxels={}, body_mask=None) for scan in plan.scans}

    def __enter__(self) -> "RegionLoader":
        if self.workers:
            self._pool = WorkerPool(self.workers)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __iter__(self) -> Iterator[RegionBatch]:
        batches = self._in_process() if self._pool is None else self._from_pool(self._pool)
        if self.device.type != "cuda":
            return batches
        # Copying into page-locked memory takes milliseconds for which a GPU would wait: a thread does it in advance.
        device: torch.device = self.device
        stream: Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch publishes none
        return prefetch(batches, lambda batch: batch.sent(device, stream))

    def _in_process(self) -> Iterator[RegionBatch]:
        step = self.first_step
        while True:
            request = self._request(step)
            voxels, labels = batch_arrays(bytearray(batch_bytes(request)), request)
            read_batch(request, voxels, labels, on_sample=lambda _: None)
            yield _batch(request, self.plan, voxels, labels)
            step += 1

    def _from_pool(self, pool: WorkerPool) -> Iterator[RegionBatch]:
        requests: dict[int, BatchRequest] = {}
        step = submitted = self.first_step
        while True:
            while submitted < step + pool.capacity:
                requests[submitted] = self._request(submitted)
                pool.submit(requests[submitted])
                submitted += 1
            voxels, labels = pool.result(step)
            yield _batch(requests.pop(step), self.plan, voxels, labels)
            step += 1

    def _request(self, step: int) -> BatchRequest:
        samples = self.plan.batch(step, rank=self.rank, world_size=self.world_size)
        return BatchRequest(step, samples, tuple(self._scans[s.scan_id] for s in samples), self.with_labels)


def batch_at(
    plan: BatchPlan, step: int = 0, *, rank: int = 0, world_size: int = 1, with_labels: bool = False
) -> RegionBatch:
    """The batch of one step, read in this process."""
    loader = RegionLoader(plan, workers=0, first_step=step, rank=rank, world_size=world_size, with_labels=with_labels)
    return next(iter(loader))


def _batch(request: BatchRequest, plan: BatchPlan, voxels: np.ndarray, labels: np.ndarray | None) -> RegionBatch:
    """The batch around the voxels that were read."""
    samples, scans = request.samples, request.scans
    start = np.array([s.start for s in samples])
    to_box = {}
    for name in plan.crops:
        matrices = np.stack([s.crops[name] for s in samples])
        matrices[:, :, 3] -= start
        to_box[name] = torch.from_numpy(matrices.astype(np.float32))
    norms = [(s.normalisation.low, s.normalisation.high, s.normalisation.mean, s.normalisation.std) for s in scans]
    return RegionBatch(
        step=request.step,
        numbers=tuple(s.number for s in samples),
        scan_ids=tuple(s.scan_id for s in samples),
        voxels=torch.from_numpy(voxels),
        labels=None if labels is None else torch.from_numpy(labels),
        box_shape=torch.from_numpy(np.array([s.stop for s in samples]) - start),
        start=torch.from_numpy(start),
        scan_shape=torch.tensor([s.shape for s in scans]),
        scale=torch.tensor([s.scale for s in scans], dtype=torch.float32),
        offset=torch.tensor([s.offset for s in scans], dtype=torch.float32),
        normalisation=torch.tensor(norms, dtype=torch.float32),
        crops=to_box,
        sizes={name: crop.size for name, crop in plan.crops.items()},
        exact={name: np.array([is_exact(s.crops[name]) for s in samples]) for name in plan.crops},
        spacing_mm=torch.tensor([s.spacing_mm for s in scans], dtype=torch.float32),
    )
