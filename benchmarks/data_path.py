"""The whole data path: CPU time per sample as handed to the device, memory over many steps, and waiting beside a
network.

    python benchmarks/data_path.py [--edge 160] [--steps 40] [--memory-steps 10000]

The CPU time of a sample counts the main process and the workers: planning, reading, unpacking, handing over. It is
compared with batchgeneratorsv2's SpatialTransform (nnU-Net's) of a patch of the same size, rotation and zoom, where
that package is installed. On a GPU, where there is one, the share of a step spent waiting for data with 4 workers is
measured beside DynUNet and Swin UNETR at 96^3 in bf16. Writes benchmarks/results/data_path.json.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from crop_read import head
from machine import cpu_ms, machine, write_results

from medssl.geometry import Volume, to_array_axes
from medssl.loading.crops import Crop
from medssl.loading.loader import RegionLoader
from medssl.loading.plan import BatchPlan
from medssl.store.policy import Packing, StorePolicy
from medssl.store.volumes import StoredVolume, write_volume

ROTATE_DEG, ZOOM, HAPPENS = 30.0, (0.7, 1.4), 0.36


def scans(folder: Path, voxels: np.ndarray, count: int, packing: Packing = "lz4") -> list[StoredVolume]:
    volume, policy = Volume(to_array_axes(voxels), np.eye(4)), StorePolicy(packing=packing)
    return [write_volume(folder, f"scan-{i}", volume, modality="MR", label=None, policy=policy) for i in range(count)]


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def per_sample(stored: list[StoredVolume], crop: Crop, *, steps: int, workers: int) -> float:
    """CPU milliseconds per sample, workers included, without their start."""

    def run(count: int) -> float:
        plan, before = BatchPlan(stored, {"patch": crop}, batch_size=2, seed=0), cpu_seconds()
        with RegionLoader(plan, workers=workers, first_step=0) as loader:
            for _ in zip(range(count), loader, strict=False):
                pass
        return cpu_seconds() - before

    start = run(2)
    return 1e3 * (run(2 + steps) - start) / (2 * steps)


def batchgenerators(voxels: np.ndarray, edge: int, rounds: int = 5) -> float | str:
    """CPU milliseconds of nnU-Net's spatial transform, image only, when it fires on every axis."""
    try:
        from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    except ImportError:
        return "not installed"
    angle = (-np.deg2rad(ROTATE_DEG), np.deg2rad(ROTATE_DEG))
    transform = SpatialTransform(
        (edge,) * 3, 0, random_crop=False, p_elastic_deform=0, p_rotation=1, rotation=angle, p_scaling=1, scaling=ZOOM,
        p_synchronize_scaling_across_axes=1,
    )  # fmt: skip
    image = torch.from_numpy(voxels[None].astype(np.float32))
    return round(cpu_ms([lambda: transform(image=image)] * rounds), 1)


def memory(folder: Path, steps: int) -> dict[str, float]:
    """Resident megabytes of the main process after a tenth of the steps and after all; small patches, one worker."""
    small = np.random.default_rng(0).integers(0, 2000, (48, 48, 48)).astype(np.int16)
    crop = Crop(size=(16, 16, 16), rotation_deg=(ROTATE_DEG,) * 3, flip=(0.5, 0.5, 0.5))
    plan, seen = BatchPlan(scans(folder, small, 4), {"patch": crop}, batch_size=2, seed=0), {}
    with RegionLoader(plan, workers=1, first_step=0) as loader:
        worker = loader._pool.workers[0].process.pid
        for step, _ in enumerate(loader, start=1):
            if step in (steps // 10, steps):
                seen[f"main process, MB after {step} steps"] = resident_mb("self")
                seen[f"worker, MB after {step} steps"] = resident_mb(str(worker))
            if step == steps:
                return seen
    return seen


def resident_mb(process: str) -> float:
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024, 1)


def waiting(stored: list[StoredVolume], steps: int = 50) -> dict[str, float] | str:
    """Share of a step spent waiting, per network, at 96^3 in bf16 with 4 workers."""
    if not torch.cuda.is_available():
        return "not measured: this machine has no GPU"
    from medssl.encoders.build import build_encoder, describe
    from medssl.views.intensity import IntensityChain
    from medssl.views.region import Region

    crop = Crop(size=(96, 96, 96), rotation_deg=(ROTATE_DEG,) * 3, zoom=ZOOM, probability=HAPPENS, flip=(0.5, 0.5, 0.5))
    plan, device, out = BatchPlan(stored, {"patch": crop}, batch_size=4, seed=0), torch.device("cuda"), {}
    for name in ("dynunet", "swin-unetr"):
        description = describe(name, preset="auto", options={}, in_channels=1, patch=crop.size, spacing_mm=(1.0,) * 3)
        encoder, chain, waits, started = build_encoder(description).to(device), IntensityChain(), 0.0, 0.0
        with RegionLoader(plan, workers=4, first_step=0, device=device) as loader:
            batches = iter(loader)
            for step in range(steps + 10):
                if step == 10:
                    torch.cuda.synchronize()
                    waits, started = 0.0, time.perf_counter()
                asked = time.perf_counter()
                batch = next(batches)
                waits += time.perf_counter() - asked
                region = Region(batch, device=device, seed=0)
                image = chain(region.crop("patch"), region.random, "view")
                with torch.autocast("cuda", torch.bfloat16):
                    sum(level.float().square().mean() for level in encoder(image)).backward()
                encoder.zero_grad(set_to_none=True)
                torch.cuda.synchronize()
        out[name] = round(waits / (time.perf_counter() - started), 4)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=160)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--memory-steps", type=int, default=10_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    voxels, origin = head()
    size = (asked.edge,) * 3
    plain = Crop(size=size, flip=(0.5, 0.5, 0.5))
    turned = Crop(size=size, rotation_deg=(ROTATE_DEG,) * 3, zoom=ZOOM, probability=HAPPENS, flip=(0.5, 0.5, 0.5))
    results: dict[str, object] = {
        "machine": machine("blosc2", "batchgeneratorsv2"),
        "data": f"{origin}, {voxels.shape}",
    }
    with tempfile.TemporaryDirectory() as folder:
        stored = scans(Path(folder), voxels, 3)
        flat = scans(Path(folder) / "flat", voxels, 3, "none")
        results["cpu_ms_per_sample"] = {
            f"{what}, {packing}": round(per_sample(kept, crop, steps=asked.steps, workers=1), 2)
            for what, crop in (
                (f"windows of {asked.edge}^3", plain),
                (f"{asked.edge}^3, turned and zoomed in {HAPPENS:.0%}", turned),
            )
            for packing, kept in (("lz4", stored), ("not packed", flat))
        }
        results["cpu_ms_per_sample"][f"batchgeneratorsv2 SpatialTransform at {asked.edge}^3"] = batchgenerators(
            voxels, asked.edge
        )
        results["memory"] = memory(Path(folder) / "small", asked.memory_steps)
        results["share of a step spent waiting, GPU"] = waiting(stored)
    for group in ("cpu_ms_per_sample", "memory"):
        for name, value in results[group].items():
            print(f"{name}: {value}")
    print(f"share of a step spent waiting: {results['share of a step spent waiting, GPU']}")
    print(f"written: {write_results('data_path', results)}")


if __name__ == "__main__":
    main()
