"""Region batches in the order of the plan, read ahead by worker processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl.loading.placement import is_exact
from medssl.loading.plan import BatchPlan
from medssl.loading.pool import Crew
from medssl.loading.prefetch import ahead
from medssl.loading.worker import Order, batch_arrays, batch_bytes, read_batch

# torch.cuda.Stream and torch.cuda.Event. Nothing can stand in for torch's own classes where there is no GPU to test on.
Stream = Any
Event = Any


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """Raw voxels of one batch and what is needed to make views of them. All tensors lie on the host, but for voxels and
    labels that are on their way to a GPU.

    numbers: sample numbers in the stream. voxels: (N,) int16, the samples' boxes one after the other, each (d, h, w) in
    C order; `boxes` takes them apart. labels: the same, uint8. box_shape, start: (B, 3) int64 voxels each box has and
    where it starts in its scan; scan_shape (B, 3) int64. scale, offset: (B,) float32, physical value = voxel * scale +
    offset. normalisation: (B, 4) float32 low, high, mean, std in physical units. crops: per name (B, 3, 4) float32,
    patch voxel to box voxel. sizes: (D, H, W) of each patch. exact: per name (B,) bool on the host, true where the
    patch is a window of whole voxels. spacing_mm: (B, 3) float32 along D, H, W. arrival: set by `sent`.
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
    sizes: dict[str, tuple[int, int, int]]
    exact: dict[str, np.ndarray]
    spacing_mm: Tensor
    arrival: Event | None = None

    def boxes(self, flat: Tensor) -> list[Tensor]:
        """Per sample the (d, h, w) box in `flat`, which is `voxels` or `labels`, or a copy of them on a device."""
        shapes = [tuple(shape) for shape in self.box_shape.tolist()]
        parts = torch.split(flat, [prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def pinned(self) -> "RegionBatch":
        """The same batch with its voxels in page-locked memory, from which a copy to a GPU does not block."""
        return self._with(lambda tensor: tensor.pin_memory())

    def sent(self, device: torch.device, stream: Stream) -> "RegionBatch":
        """The same batch on its way to a GPU: copied on `stream`, while other streams compute. `received` comes first.

        The page-locked memory is not given to anybody else before the copy is done: torch's allocator sees to that.
        """
        pinned = self.pinned()
        with torch.cuda.stream(stream):
            moved = pinned._with(lambda tensor: tensor.to(device, non_blocking=True))
            arrival: Event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch publishes none
            arrival.record(stream)
        return replace(moved, arrival=arrival)

    def received(self, device: torch.device) -> "RegionBatch":
        """The same batch, to be used on the current stream of `device`, which waits for its copy; the host does not."""
        if self.arrival is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self.arrival)
            for tensor in [self.voxels] if self.labels is None else [self.voxels, self.labels]:
                # Made on the other stream, whose allocator would hand the memory on while this stream still reads it.
                tensor.record_stream(stream)
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def _with(self, change: Callable[[Tensor], Tensor]) -> "RegionBatch":
        return replace(self, voxels=change(self.voxels), labels=None if self.labels is None else change(self.labels))


class RegionLoader:
    """Batches of `plan` for `first_step`, `first_step` + 1, ... without end, the same bytes for any number of workers.

    A context manager: leaving it ends the workers. Iterate once. workers=0 reads in place. device: where the batches
    are used; a thread copies them to a GPU while the step before computes. A scan that cannot be read, or a worker that
    dies, ends the iteration with a DataError that names the scan.
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
        self._crew: Crew | None = None
        # Sampled label voxels and masks are needed by the plan only and would travel to a worker with every batch.
        self._scans = {scan.scan_id: replace(scan, class_voxels={}, body_mask=None) for scan in plan.scans}

    def __enter__(self) -> "RegionLoader":
        if self.workers:
            self._crew = Crew(self.workers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def __iter__(self) -> Iterator[RegionBatch]:
        batches = self._in_place() if self._crew is None else self._from_crew(self._crew)
        if self.device.type != "cuda":
            return batches
        # Copying into page-locked memory takes milliseconds that a GPU would wait for: a thread does it ahead.
        device: torch.device = self.device
        stream: Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch publishes none
        return ahead(batches, lambda batch: batch.sent(device, stream))

    def _in_place(self) -> Iterator[RegionBatch]:
        step = self.first_step
        while True:
            order = self._order(step)
            voxels, labels = batch_arrays(bytearray(batch_bytes(order)), order)
            read_batch(order, voxels, labels, reading=lambda _: None)
            yield _batch(order, self.plan, voxels, labels)
            step += 1

    def _from_crew(self, crew: Crew) -> Iterator[RegionBatch]:
        orders: dict[int, Order] = {}
        step = ahead = self.first_step
        while True:
            while ahead < step + crew.capacity:
                orders[ahead] = self._order(ahead)
                crew.give(orders[ahead])
                ahead += 1
            voxels, labels = crew.take(step)
            yield _batch(orders.pop(step), self.plan, voxels, labels)
            step += 1

    def _order(self, step: int) -> Order:
        samples = self.plan.batch(step, rank=self.rank, world_size=self.world_size)
        return Order(step, samples, tuple(self._scans[s.scan_id] for s in samples), self.with_labels)


def _batch(order: Order, plan: BatchPlan, voxels: np.ndarray, labels: np.ndarray | None) -> RegionBatch:
    """The batch around the voxels that were read."""
    samples, scans = order.samples, order.scans
    start = np.array([s.start for s in samples])
    to_box = {}
    for name in plan.crops:
        matrices = np.stack([s.crops[name] for s in samples])
        matrices[:, :, 3] -= start
        to_box[name] = torch.from_numpy(matrices.astype(np.float32))
    norms = [(s.normalisation.low, s.normalisation.high, s.normalisation.mean, s.normalisation.std) for s in scans]
    return RegionBatch(
        step=order.step,
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
