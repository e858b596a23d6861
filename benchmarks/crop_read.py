"""An exact crop from disk: medssl's store against the peers' formats, one core, warm, CPU time.

    python benchmarks/crop_read.py [--edges 96 160] [--crops 25]

Reads the T1 head of ../shared/data (192 x 256 x 256, 12 bits), or a phantom of that size where it is absent. All
formats are read at the same places, in turns, and the result is a contiguous array in memory. Prints a table and
writes benchmarks/results/crop_read.json.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import machine, write_results

from medssl.geometry import Volume, to_array_axes
from medssl.store.blocks import BLOCK_VOXELS, CHUNK_VOXELS
from medssl.store.policy import StorePolicy
from medssl.store.volumes import StoredVolume, write_volume

DICOM = Path(__file__).resolve().parents[2] / "shared" / "data" / "dicom" / "head_t1"
Reader = Callable[[tuple[slice, ...]], np.ndarray]
PACKED, FLAT = "medssl store, lz4 (int16)", "medssl store, not packed (int16)"


def head() -> tuple[np.ndarray, str]:
    """(D, H, W) int16 and where it is from."""
    if DICOM.is_dir():
        import pydicom

        files = [pydicom.dcmread(p, force=True) for p in DICOM.rglob("*") if p.is_file()]
        slices = sorted((f for f in files if "PixelData" in f), key=lambda f: float(f.ImagePositionPatient[0]))
        return np.stack([f.pixel_array for f in slices]).astype(np.int16), "T1 head, 12 bits (FNNDSC/SAG-anon)"
    field = np.random.default_rng(0).standard_normal((24, 32, 32)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    noise = np.random.default_rng(1).standard_normal(field.shape) * 15
    return np.clip(300 + 120 * field + noise, 0, 4095).astype(np.int16), "phantom: steps and noise"


def formats(folder: Path, voxels: np.ndarray) -> dict[str, tuple[Reader, Path]]:
    """Each format: how it is read, opening included, and what it wrote."""
    import blosc2
    import nibabel as nib
    import torch
    import zarr

    one = {"nthreads": 1}
    packed_scan, flat_scan = (
        write_volume(
            folder, packing, Volume(to_array_axes(voxels), np.eye(4)), modality="MR", label=None,
            policy=StorePolicy(packing=packing),
        )
        for packing in ("lz4", "none")
    )  # fmt: skip
    np.save(folder / "raw.npy", voxels)
    blosc2.asarray(
        voxels, urlpath=str(folder / "plain.b2nd"), mode="w",
        chunks=CHUNK_VOXELS, blocks=BLOCK_VOXELS, cparams={"clevel": 0, **one},
    )  # fmt: skip
    nnssl = {"codec": blosc2.Codec.ZSTD, "clevel": 8, **one}
    blosc2.asarray(
        voxels.astype(np.float32), urlpath=str(folder / "nnssl.b2nd"), mode="w",
        chunks=(160, 160, 160), blocks=(16, 16, 16), cparams=nnssl,
    )  # fmt: skip
    packed = zarr.create_array(
        folder / "zarr", data=voxels, chunks=(64, 64, 64),
        compressors=zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
    )  # fmt: skip
    del packed
    nib.save(nib.Nifti1Image(to_array_axes(voxels), np.eye(4)), folder / "scan.nii.gz")
    torch.save(torch.from_numpy(voxels.astype(np.float32)), folder / "scan.pt")

    def reader(scan: StoredVolume) -> Reader:
        return lambda box: scan.read(tuple(s.start for s in box), tuple(s.stop for s in box))

    return {
        PACKED: (reader(packed_scan), folder / "lz4.b2nd"),
        FLAT: (reader(flat_scan), folder / "none.safetensors"),
        "raw int16, memory map": (
            lambda b: np.array(np.load(folder / "raw.npy", mmap_mode="r")[b]),
            folder / "raw.npy",
        ),
        "the store's layout, not packed (blosc2)": (
            lambda b: blosc2.open(str(folder / "plain.b2nd"), mode="r", mmap_mode="r", dparams=one)[b],
            folder / "plain.b2nd",
        ),
        "nnssl (float32, ZSTD 8, 16-cubed)": (
            lambda b: blosc2.open(str(folder / "nnssl.b2nd"), mode="r", mmap_mode="r", dparams=one)[b],
            folder / "nnssl.b2nd",
        ),
        "zarr v3 (int16, LZ4, 64-cubed)": (
            lambda b: np.asarray(zarr.open_array(folder / "zarr", mode="r")[b]),
            folder / "zarr",
        ),
        "NIfTI .nii.gz": (
            lambda b: np.ascontiguousarray(nib.load(folder / "scan.nii.gz").dataobj[b[::-1]].T),
            folder / "scan.nii.gz",
        ),
        "torch.load, whole volume (float32)": (
            lambda b: torch.load(folder / "scan.pt")[b].contiguous().numpy(),
            folder / "scan.pt",
        ),
    }


def measure(edges: list[int], crops: int) -> dict[str, object]:
    voxels, origin = head()
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        readers = formats(Path(folder), voxels)
        rows: dict[str, dict[str, float]] = {name: {} for name in readers}
        for name, (_, path) in readers.items():
            files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
            rows[name]["share_of_float32"] = round(sum(p.stat().st_size for p in files) / (4 * voxels.size), 3)
        for edge in edges:
            starts = [[int(draw.integers(0, n - edge + 1)) for n in voxels.shape] for _ in range(crops)]
            boxes = [tuple(slice(a, a + edge) for a in start) for start in starts]
            times: dict[str, list[float]] = {name: [] for name in readers}
            for number, box in enumerate([boxes[0], *boxes]):  # in turns; the first one warms up
                for name, (read, _) in readers.items():
                    if number > 5 and name.startswith(("NIfTI", "torch")):
                        continue
                    started = time.process_time()
                    found = read(box)
                    times[name] += [time.process_time() - started] if number else []
                    assert np.array_equal(found, voxels[box]), name
            for name, seconds in times.items():
                rows[name][f"cpu_ms_{edge}"] = round(1e3 * statistics.median(seconds), 2)
    return {"data": f"{origin}, {voxels.shape} (D, H, W)", "formats": rows, "ratios": ratios(rows, edges)}


def ratios(rows: dict[str, dict[str, float]], edges: list[int]) -> dict[str, float]:
    return {
        f"{name} / {store} at {edge}": round(row[f"cpu_ms_{edge}"] / rows[store][f"cpu_ms_{edge}"], 2)
        for store in (PACKED, FLAT)
        for edge in edges
        for name, row in rows.items()
        if name != store
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, nargs="+", default=[96, 160])
    parser.add_argument("--crops", type=int, default=25)
    asked = parser.parse_args()
    results = {"machine": machine("blosc2", "zarr", "nibabel"), **measure(asked.edges, asked.crops)}
    print(f"{'':42}{'of float32':>11}" + "".join(f"{f'{e}^3 (ms)':>12}" for e in asked.edges))
    for name, row in results["formats"].items():
        print(
            f"{name:42}{row['share_of_float32']:>11.3f}" + "".join(f"{row[f'cpu_ms_{e}']:>12.2f}" for e in asked.edges)
        )
    print(f"written: {write_results('crop_read', results)}")


if __name__ == "__main__":
    main()
