import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stored_scans import noise, store_scan
from waiting import wait_for

from medssl.errors import DataError
from medssl.loading.crops import Crop
from medssl.loading.loader import RegionBatch, RegionLoader
from medssl.loading.plan import BatchPlan
from medssl.loading.worker import scan_being_read

CROPS = {
    "patch": Crop(
        size=(10, 12, 14), rotation_deg=(20.0, 20.0, 20.0), zoom=(0.8, 1.2), flip=(0.0, 0.0, 0.5), probability=0.5
    ),
    "plain": Crop(size=(6, 6, 6)),
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    shapes = [(20, 22, 24), (30, 18, 26), (17, 40, 15), (9, 8, 30), (25, 25, 25)]
    return [
        store_scan(folder, f"scan-{i}", noise(s, i), label=(noise(s, i) % 3).astype(np.uint8))
        for i, s in enumerate(shapes)
    ]


@pytest.fixture
def plan(scans):
    return BatchPlan(scans, CROPS, batch_size=4, seed=11)


def batches(plan: BatchPlan, count: int, **kwargs) -> list[RegionBatch]:
    with RegionLoader(plan, **{"workers": 0, "first_step": 0, "with_labels": True, **kwargs}) as loader:
        return [batch for batch, _ in zip(loader, range(count), strict=False)]


def same(a: RegionBatch, b: RegionBatch) -> bool:
    tensors = ("voxels", "labels", "box_shape", "start", "scale", "offset", "normalisation", "spacing_mm")
    return (
        (a.step, a.numbers, a.scan_ids) == (b.step, b.numbers, b.scan_ids)
        and all(torch.equal(getattr(a, n), getattr(b, n)) for n in tensors)
        and all(torch.equal(a.crops[n], b.crops[n]) and (a.exact[n] == b.exact[n]).all() for n in a.crops)
    )


def test_loader_bytes_do_not_depend_on_workers(plan):
    alone = batches(plan, 7)
    for workers in (1, 3):
        assert all(same(a, b) for a, b in zip(alone, batches(plan, 7, workers=workers), strict=True))


def test_loader_resumes_at_first_step(plan):
    alone = batches(plan, 5)
    assert all(same(a, b) for a, b in zip(alone[3:], batches(plan, 2, first_step=3, workers=2), strict=True))


def test_loader_splits_batch_between_ranks(plan):
    whole, halves = batches(plan, 1)[0], [batches(plan, 1, rank=r, world_size=2)[0] for r in range(2)]
    assert halves[0].numbers + halves[1].numbers == whole.numbers
    assert halves[0].scan_ids + halves[1].scan_ids == whole.scan_ids
    assert torch.equal(torch.cat([h.crops["patch"] for h in halves]), whole.crops["patch"])


@pytest.mark.parametrize("workers", [0, 1])
def test_batch_holds_boxes_without_padding(plan, scans, workers):
    by_id = {scan.scan_id: scan for scan in scans}
    for batch in batches(plan, 5, workers=workers):
        assert batch.voxels.dtype == torch.int16
        assert batch.labels.dtype == torch.uint8
        assert len(batch.voxels) == len(batch.labels) == batch.box_shape.prod(dim=1).sum()
        boxes = zip(batch.scan_ids, batch.boxes(batch.voxels), batch.boxes(batch.labels), strict=True)
        for row, (scan_id, voxels, labels) in enumerate(boxes):
            start = tuple(batch.start[row].tolist())
            stop = tuple((batch.start[row] + batch.box_shape[row]).tolist())
            assert np.array_equal(voxels.numpy(), by_id[scan_id].read(start, stop))
            assert np.array_equal(labels.numpy(), by_id[scan_id].read_label(start, stop))
        assert batch.spacing_mm[0].tolist() == pytest.approx([2.5, 1.1, 0.8])


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_names_missing_scan(tmp_path, workers):
    scans = [store_scan(tmp_path, f"scan-{i}", noise((20, 20, 20), i)) for i in range(3)]
    (tmp_path / "scan-1.b2nd").unlink()
    plan = BatchPlan(scans, {"a": Crop(size=(8, 8, 8))}, batch_size=3, seed=0)
    with pytest.raises(DataError, match="scan-1 is not in the store"):
        batches(plan, 1, workers=workers, with_labels=False)


def test_loader_names_truncated_scan(tmp_path):
    scans = [store_scan(tmp_path, f"scan-{i}", noise((40, 40, 40), i)) for i in range(3)]
    path = tmp_path / "scan-2.b2nd"
    path.write_bytes(path.read_bytes()[:9000])
    plan = BatchPlan(scans, {"a": Crop(size=(30, 30, 30))}, batch_size=3, seed=0)
    with pytest.raises(DataError, match=r"scan-2.*damaged"):
        batches(plan, 1, workers=1, with_labels=False)


def test_killed_worker_names_scan_being_read(tmp_path):
    """The error names the signal and the scan that the worker was reading."""
    plan = BatchPlan(
        [store_scan(tmp_path, "stuck", noise((40, 40, 40)))], {"a": Crop(size=(30,) * 3)}, batch_size=1, seed=0
    )
    (tmp_path / "stuck.b2nd").unlink()
    os.mkfifo(tmp_path / "stuck.b2nd")  # whoever opens it waits for a writer
    with RegionLoader(plan, workers=1, first_step=0) as loader, ThreadPoolExecutor(1) as thread:
        worker = loader._pool.workers[0]
        batch = thread.submit(next, iter(loader))
        wait_for(lambda: any(scan_being_read(memory.pages, request) for request, memory in worker.in_flight))
        os.kill(worker.process.pid, signal.SIGKILL)
        with pytest.raises(DataError, match=r"worker died \(signal 9\) while it read scan stuck\. If"):
            batch.result()


def test_worker_killed_at_any_moment_is_an_error(plan):
    with RegionLoader(plan, workers=2, first_step=0) as loader:
        stream = iter(loader)
        next(stream)
        for worker in loader._pool.workers:
            os.kill(worker.process.pid, signal.SIGKILL)
        with pytest.raises(
            DataError, match=r"worker died \(signal 9\) (while it read scan scan-\d|between two batches)\."
        ):
            list(zip(range(6), stream, strict=False))


def test_large_batch_does_not_block_the_socket(scans):
    """600 samples: orders of 400 KB and more, while the worker is at work on the one before."""
    plan = BatchPlan(scans, {"a": Crop(size=(4, 4, 4)), "b": Crop(size=(4, 4, 4))}, batch_size=600, seed=0)
    assert [batch.step for batch in batches(plan, 4, workers=2, with_labels=False)] == [0, 1, 2, 3]


def test_loader_exit_ends_workers(plan):
    with RegionLoader(plan, workers=2, first_step=0) as loader:
        next(iter(loader))
        processes = [worker.process for worker in loader._pool.workers]
    assert all(process.poll() is not None for process in processes)


def test_workers_do_not_load_torch(plan):
    with RegionLoader(plan, workers=1, first_step=0) as loader:
        next(iter(loader))
        process = loader._pool.workers[0].process
        with open(f"/proc/{process.pid}/maps") as maps:
            assert "libtorch" not in maps.read()


def test_batch_in_use_is_not_overwritten(plan):
    """A batch that the caller still holds keeps its voxels while later ones are read."""
    with RegionLoader(plan, workers=1, first_step=0) as loader:
        stream = iter(loader)
        first = next(stream)
        before = first.voxels.clone()
        for _ in range(5):
            next(stream)
        assert torch.equal(first.voxels, before)


def test_memory_is_reused_after_its_batch(plan):
    with RegionLoader(plan, workers=1, first_step=0) as loader:
        stream, worker = iter(loader), loader._pool.workers[0]
        for _ in range(40):
            next(stream)
        assert worker.memories <= 12  # it grows with the largest batch seen, then stands still
        made = worker.memories
        kept = [next(stream) for _ in range(6)]
        copies = [batch.voxels.clone() for batch in kept]
        for _ in range(10):
            next(stream)
        assert worker.memories > made
        assert all(torch.equal(batch.voxels, copy) for batch, copy in zip(kept, copies, strict=True))
        del kept
        for _ in range(20):
            next(stream)
        assert len(worker.free) <= 3


def test_loader_returns_descriptors_and_memory(plan):
    with RegionLoader(plan, workers=1, first_step=0, with_labels=True) as loader:
        stream = iter(loader)
        for _ in range(10):
            next(stream)
        worker = loader._pool.workers[0]
        folders = [f"/proc/{pid}/fd" for pid in (os.getpid(), worker.process.pid)]
        open_before = [len(os.listdir(folder)) for folder in folders]
        for _ in range(100):
            next(stream)
        # the worker is at work on the next batch while this looks
        wait_for(
            lambda: all(len(os.listdir(f)) <= n + 1 for f, n in zip(folders, open_before, strict=True)), limit_s=10
        )


class Log(list):
    """Stands in for torch's streams and events: there may be no GPU. Notes what happens, in order."""

    def stream(self, name):
        waits = SimpleNamespace(name=name, wait_event=lambda event: self.append(("wait", name, event.name)))
        return waits

    def install(self, monkeypatch):
        log = self

        class Event:
            name = "arrival"

            def record(self, stream):
                log.append(("record", stream.name))

        @contextmanager
        def on(stream):
            log.append(("enter", stream.name))
            yield
            log.append(("leave", stream.name))

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self.stream("side"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.stream("compute"))
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: log.append(("pin",)) or tensor)
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *a, **k: log.append(("copy", k)) or tensor)
        monkeypatch.setattr(
            torch.Tensor, "record_stream", lambda tensor, stream: log.append(("keep", stream.name, tensor.dtype))
        )
        return log


def test_copy_has_its_own_stream(plan, monkeypatch):
    """The device waits for the copy; the host does not."""
    batch = batches(plan, 1)[0]
    log = Log().install(monkeypatch)
    sent = batch.sent(torch.device("cuda"), torch.cuda.Stream(torch.device("cuda")))
    copy = ("copy", {"non_blocking": True})
    assert log == [("pin",), ("pin",), ("enter", "side"), copy, copy, ("record", "side"), ("leave", "side")]
    log.clear()
    sent.received(torch.device("cuda"))
    kept = [("keep", "compute", torch.int16), ("keep", "compute", torch.uint8)]
    assert log[:3] == [("wait", "compute", "arrival"), *kept]


def test_prefetched_copies_keep_order_and_bytes(plan, monkeypatch):
    alone = batches(plan, 5)
    with RegionLoader(plan, workers=2, first_step=0, with_labels=True) as loader:
        Log().install(monkeypatch)
        loader.device = torch.device("cuda")
        ahead = [batch for batch, _ in zip(loader, range(5), strict=False)]
    monkeypatch.undo()
    assert all(batch.arrival is not None for batch in ahead)
    assert all(same(a, b) for a, b in zip(alone, ahead, strict=True))


def test_loader_neither_pins_nor_sends_on_cpu(plan):
    with RegionLoader(plan, workers=1, first_step=0, device=torch.device("cpu")) as loader:
        batch = next(iter(loader))
    assert batch.arrival is None
    assert batch.received(torch.device("cpu")).voxels.data_ptr() == batch.voxels.data_ptr()


@pytest.mark.gpu
def test_batch_reaches_busy_gpu_complete(plan):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    alone, device = batches(plan, 20), torch.device("cuda")
    busy = torch.randn(4096, 4096, device=device)
    with RegionLoader(plan, workers=2, first_step=0, with_labels=True, device=device) as loader:
        for expected, batch in zip(alone, loader, strict=False):
            busy = busy @ busy / 64.0  # the compute stream is behind the host
            received = batch.received(device)
            assert torch.equal(received.voxels.cpu(), expected.voxels)
            assert torch.equal(received.labels.cpu(), expected.labels)
