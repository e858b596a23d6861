"""Voxels that are not packed: the same reads, the same errors, another file."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from stored_scans import noise, store_scan

from medssl.errors import DataError
from medssl.store.volumes import open_volume, packing_of, remove_volume, stored_scan_ids, verify_volume

SHAPE = (70, 66, 90)  # x, y, z


def header(path):
    length = int.from_bytes(path.read_bytes()[:8], "little")
    return length, json.loads(path.read_bytes()[8 : 8 + length])


def with_header(path, changed):
    """The file with another header; its data stay where they are."""
    length, _ = header(path)
    text = json.dumps(changed).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + path.read_bytes()[8 + length :])


def test_flat_boxes_equal_packed_boxes(tmp_path):
    voxels, label = noise(SHAPE), (noise(SHAPE, 1) % 4).astype(np.uint8)
    packed = store_scan(tmp_path / "packed", "a", voxels, label=label)
    flat = store_scan(tmp_path / "flat", "a", voxels, label=label, packing="none")
    for fact in ("shape", "scale", "offset", "body_box", "normalisation"):
        assert getattr(flat, fact) == getattr(packed, fact)
    assert {value: where.tolist() for value, where in flat.class_voxels.items()} == {
        value: where.tolist() for value, where in packed.class_voxels.items()
    }
    draw = np.random.default_rng(0)
    for _ in range(30):
        start = tuple(int(draw.integers(n)) for n in flat.shape)
        stop = tuple(int(draw.integers(a + 1, n + 1)) for a, n in zip(start, flat.shape, strict=True))
        box = flat.read(start, stop)
        assert box.flags["C_CONTIGUOUS"]
        assert np.array_equal(box, packed.read(start, stop))
        assert np.array_equal(flat.read_label(start, stop), packed.read_label(start, stop))


def test_flat_box_is_read_into_out(tmp_path):
    scan = store_scan(tmp_path, "a", noise((20, 10, 30)), packing="none")
    target = np.zeros((5, 4, 3), np.int16)
    assert scan.read((1, 2, 3), (6, 6, 6), out=target) is target
    assert np.array_equal(target, scan.read((0, 0, 0), scan.shape)[1:6, 2:6, 3:6])


def test_flat_file_is_readable_by_safetensors(tmp_path):
    voxels = noise((20, 10, 30))
    store_scan(tmp_path, "a", voxels, label=(voxels % 3).astype(np.uint8), packing="none")
    assert np.array_equal(load_file(tmp_path / "a.safetensors")["voxels"], voxels.transpose(2, 1, 0))


def test_flat_rewrite_gives_same_bytes(tmp_path):
    found = []
    for _ in range(2):
        store_scan(tmp_path, "a", noise((30, 20, 10)), label=(noise((30, 20, 10)) % 4).astype(np.uint8), packing="none")
        found.append({p.name: p.read_bytes() for p in tmp_path.iterdir()})
    assert found[0] == found[1]
    assert sorted(found[0]) == ["a.label.safetensors", "a.safetensors"]
    verify_volume(tmp_path, "a")


def test_scan_is_found_and_removed_in_any_packing(tmp_path):
    for scan_id, packing in (("a", "lz4"), ("b", "none")):
        store_scan(tmp_path, scan_id, noise((8, 9, 10)), label=np.ones((8, 9, 10), np.uint8), packing=packing)
        assert packing_of(tmp_path, scan_id) == open_volume(tmp_path, scan_id).packing == packing
    assert set(stored_scan_ids(tmp_path)) == {"a", "b"}
    remove_volume(tmp_path, "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.b2nd", "a.label.b2nd"]


@pytest.mark.parametrize("keep", [0, 7, 100, 3000, 100_000])
def test_truncated_file_names_scan(tmp_path, keep):
    scan = store_scan(tmp_path, "scan-7", noise((40, 40, 40)), packing="none")
    path = tmp_path / "scan-7.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"scan-7 is damaged"):
        open_volume(tmp_path, "scan-7")
    with pytest.raises(DataError, match=r"scan-7 is damaged"):
        scan.read((0, 0, 0), (4, 4, 4))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "F64"),
        ("shape", [10**6, 10**6, 10**6]),
        ("shape", [64000]),
        ("shape", [-40, -40, 40]),
        ("data_offsets", [10**12, 10**12 + 128_000]),
        ("data_offsets", [-8, 127_992]),
        ("data_offsets", "all"),
    ],
)
def test_flat_header_with_false_sizes_is_rejected(tmp_path, field, value):
    """The header is checked before any memory is allocated."""
    scan = store_scan(tmp_path, "scan-7", noise((40, 40, 40)), packing="none")
    path = tmp_path / "scan-7.safetensors"
    _, entries = header(path)
    entries["voxels"][field] = value
    with_header(path, entries)
    with pytest.raises(DataError, match=r"scan-7 is damaged"):
        scan.read((0, 0, 0), (4, 4, 4))
    with pytest.raises(DataError, match=r"scan-7 is damaged"):
        verify_volume(tmp_path, "scan-7")


def test_flat_header_without_end_is_rejected(tmp_path):
    scan = store_scan(tmp_path, "scan-7", noise((40, 40, 40)), packing="none")
    path = tmp_path / "scan-7.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(DataError, match=f"a header of {2**40} bytes"):
        scan.read((0, 0, 0), (4, 4, 4))


def test_box_beyond_file_is_rejected(tmp_path):
    scan = store_scan(tmp_path, "scan-7", noise((10, 20, 30)), packing="none")
    with pytest.raises(DataError, match="do not hold the box"):
        scan.read((0, 0, 0), (31, 20, 10))
