"""What a store that is damaged, incomplete or full gets: a name and what to do, never another scan in its place."""

import subprocess
import sys
from pathlib import Path

import blosc2
import numpy as np
import pytest
from stored_scans import noise, store_scan

from medssl.errors import DataError
from medssl.loading.crops import Crop
from medssl.loading.loader import RegionLoader
from medssl.loading.plan import BatchPlan
from medssl.store.volumes import image_path, open_volume, verify_volume


def break_a_block(path: Path) -> None:
    """Overwrite the head of the first chunk in the file, which tells how its blocks are packed."""
    array = blosc2.open(str(path), mode="r")
    chunk = array.schunk.get_chunk(0)
    whole = path.read_bytes()
    at = whole.index(chunk[:64])
    path.write_bytes(whole[:at] + b"\xff" * 32 + whole[at + 32 :])


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_block_names_scan_and_remedy(tmp_path, workers):
    """Training stops; no other scan takes the place of the damaged one."""
    scans = [store_scan(tmp_path, f"scan-{i}", noise((40, 40, 40), i)) for i in range(3)]
    break_a_block(tmp_path / "scan-1.b2nd")
    plan = BatchPlan(scans, {"a": Crop(size=(36, 36, 36))}, batch_size=1, seed=0)
    expected = [plan.scan_of(number).scan_id for number in range(3)]
    with RegionLoader(plan, workers=workers, first_step=0) as loader:
        stream = iter(loader)
        # It stops at the very sample, after those before it, and nothing takes its place.
        for scan_id in expected[: expected.index("scan-1")]:
            assert next(stream).scan_ids == (scan_id,)
        with pytest.raises(DataError, match=r"scan scan-1 is damaged.*Delete that file and run the ingest"):
            next(stream)


@pytest.mark.parametrize(("packing", "name"), [("lz4", "scan-7.label.b2nd"), ("none", "scan-7.label.safetensors")])
def test_missing_label_file_names_scan(tmp_path, packing, name):
    label = (noise((20, 22, 24)) % 3).astype(np.uint8)
    scan = store_scan(tmp_path, "scan-7", noise((20, 22, 24)), label=label, packing=packing)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"scan-7 is not in the store \({name} is missing\)"):
        scan.read_label((0, 0, 0), scan.shape)


@pytest.mark.parametrize("packing", ["lz4", "none"])
def test_garbage_in_file_never_crashes(tmp_path, packing):
    """Random bytes give a DataError or other voxels, never an abort of the process."""
    scan = store_scan(tmp_path, "scan-7", noise((64, 32, 48)) // 20, packing=packing)
    path, draw = image_path(tmp_path, "scan-7", packing), np.random.default_rng(0)
    whole, voxels = path.read_bytes(), scan.read((0, 0, 0), scan.shape)
    refused = []
    for _ in range(100):
        size = int(draw.choice([1, 64, 4096]))
        # flat: most of a file is voxels, any of which are voxels; so aim at the header
        at = int(draw.integers(len(whole) - size if packing == "lz4" else 2_000))
        path.write_bytes(whole[:at] + draw.bytes(size) + whole[at + size :])
        try:
            assert open_volume(tmp_path, "scan-7").read((0, 0, 0), scan.shape).shape == voxels.shape
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all("scan-7" in said for said in refused)


@pytest.mark.parametrize("packing", ["lz4", "none"])
def test_verify_finds_flipped_bit(tmp_path, packing):
    scan = store_scan(tmp_path, "scan-7", noise((64, 32, 48)), packing=packing)
    path = image_path(tmp_path, "scan-7", packing)
    whole, voxels = path.read_bytes(), scan.read((0, 0, 0), scan.shape)
    path.write_bytes(whole[:40_000] + bytes([whole[40_000] ^ 1]) + whole[40_001:])
    assert 0 < np.count_nonzero(scan.read((0, 0, 0), scan.shape) != voxels) < 100
    with pytest.raises(DataError, match=r"scan-7 is damaged.*the checksum differs"):
        verify_volume(tmp_path, "scan-7")


STORE_WITH_LITTLE_SPACE = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import numpy as np
from stored_scans import noise, store_scan
from medssl.errors import DataError
voxels = noise((40, 50, 60))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    store_scan(Path({folder!r}), "scan-7", voxels, label=(voxels % 3).astype(np.uint8), packing={packing!r})
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("packing", ["lz4", "none"])
@pytest.mark.parametrize("limit", [20_000, 150_000])
def test_full_disk_leaves_nothing_of_scan(tmp_path, limit, packing):
    tests = str(Path(__file__).parents[1])
    script = STORE_WITH_LITTLE_SPACE.format(tests=tests, folder=str(tmp_path), limit=limit, packing=packing)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert "scan-7" in done.stdout
    assert "MB free). Check that the folder exists, has space and may be written to" in done.stdout
    assert not list(tmp_path.iterdir())


def test_failed_rewrite_keeps_stored_label(tmp_path, monkeypatch):
    label = (noise((8, 9, 10)) % 3).astype(np.uint8)
    scan = store_scan(tmp_path, "a", noise((8, 9, 10)), label=label)

    def full(source: Path, target: Path) -> None:
        if target.name == "a.b2nd":
            raise OSError(28, "No space left on device")
        Path(source).rename(target)

    monkeypatch.setattr("medssl.files.os.replace", full)
    with pytest.raises(DataError, match="No space left"):
        store_scan(tmp_path, "a", noise((8, 9, 10), 1), label=label)
    assert np.array_equal(scan.read_label((0, 0, 0), scan.shape), label.transpose(2, 1, 0))
    verify_volume(tmp_path, "a")
