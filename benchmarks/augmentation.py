"""The standard augmentation chain: medssl's batched transforms against the same chain in MONAI and TorchIO.

    python benchmarks/augmentation.py [--edge 96] [--batch 4] [--rounds 100]

On the CPU: one thread, CPU time per crop, the same transforms with the same ranges and probabilities, and once with
every probability 1. On a GPU, where there is one: 8 crops of 96^3 and 128^3, MONAI in a loop over the samples. TorchIO
is measured where it is installed; it has no contrast stretch and names low resolution anisotropy. Prints ratios and
writes benchmarks/results/augmentation.json.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable

import torch
from machine import cpu_ms, machine, write_results

from medssl import views as ours
from medssl.randomness import SampleRandom

ROTATE, SCALE, SHIFT, NOISE = math.radians(30), 0.25, 0.1, 0.3
SIGMA, GAMMA, ZOOM = (0.5, 1.0), (0.7, 1.5), (0.5, 1.0)
# nnU-Net's probabilities.
PROBABILITIES = {
    "affine": 0.3,
    "noise": 0.15,
    "blur": 0.2,
    "scale": 0.15,
    "shift": 0.15,
    "low": 0.25,
    "invert": 0.1,
    "gamma": 0.3,
}
Chain = Callable[[torch.Tensor], object]


def medssl_chain(probability: dict[str, float], device: torch.device) -> Chain:
    three = (ROTATE,) * 3
    chain = ours.BatchCompose(
        [
            ours.BatchRandAffine(probability["affine"], rotate_range=three, scale_range=(SCALE,) * 3),
            ours.BatchRandGaussianNoise(probability["noise"], std=NOISE),
            ours.BatchRandGaussianSmooth(SIGMA, SIGMA, SIGMA, prob=probability["blur"]),
            ours.BatchRandScaleIntensity(SCALE, prob=probability["scale"]),
            ours.BatchRandShiftIntensity(SHIFT, prob=probability["shift"]),
            ours.BatchRandSimulateLowResolution(probability["low"], ZOOM),
            ours.BatchRandAdjustContrast(probability["invert"], GAMMA, invert_image=True),
            ours.BatchRandAdjustContrast(probability["gamma"], GAMMA),
        ]
    )
    state = {"number": 0}

    def run(batch: torch.Tensor) -> torch.Tensor:
        first = state["number"]
        state["number"] += len(batch)
        return chain(batch, SampleRandom(0, range(first, first + len(batch)), device), "view")

    return run


def monai_chain(probability: dict[str, float], device: torch.device) -> Chain:
    from monai.data import set_track_meta
    from monai.transforms import (
        Compose,
        RandAdjustContrast,
        RandAffine,
        RandGaussianNoise,
        RandGaussianSmooth,
        RandScaleIntensity,
        RandShiftIntensity,
        RandSimulateLowResolution,
    )

    set_track_meta(False)  # its fastest way
    chain = Compose(
        [
            RandAffine(
                probability["affine"], rotate_range=(ROTATE,) * 3, scale_range=(SCALE,) * 3, padding_mode="zeros",
                mode="bilinear", device=device,
            ),
            RandGaussianNoise(probability["noise"], std=NOISE),
            RandGaussianSmooth(SIGMA, SIGMA, SIGMA, prob=probability["blur"]),
            RandScaleIntensity(SCALE, prob=probability["scale"]),
            RandShiftIntensity(SHIFT, prob=probability["shift"]),
            RandSimulateLowResolution(probability["low"], zoom_range=ZOOM),
            RandAdjustContrast(probability["invert"], GAMMA, invert_image=True),
            RandAdjustContrast(probability["gamma"], GAMMA),
        ]
    ).set_random_state(0)  # fmt: skip
    return lambda batch: torch.stack([torch.as_tensor(chain(x)) for x in batch])


def torchio_chain(probability: dict[str, float], device: torch.device) -> Chain:
    import torchio as tio

    chain = tio.Compose(
        [
            tio.RandomAffine(scales=SCALE, degrees=30, p=probability["affine"]),
            tio.RandomNoise(std=(0, NOISE), p=probability["noise"]),
            tio.RandomBlur(std=SIGMA, p=probability["blur"]),
            tio.RandomAnisotropy(axes=(0, 1, 2), downsampling=(1, 2), p=probability["low"]),
            tio.RandomGamma(log_gamma=0.4, p=probability["invert"]),
            tio.RandomGamma(log_gamma=0.4, p=probability["gamma"]),
        ]
    )
    return lambda batch: torch.stack([chain(x) for x in batch])


CHAINS = {"medssl": medssl_chain, "MONAI": monai_chain, "TorchIO": torchio_chain}


def crops(batch: int, edge: int, device: torch.device) -> torch.Tensor:
    return torch.randn(batch, 1, edge, edge, edge, generator=torch.Generator().manual_seed(0)).to(device)


def on_cpu(batch: int, edge: int, rounds: int) -> dict[str, dict[str, float]]:
    torch.set_num_threads(1)
    images, device, out = crops(batch, edge, torch.device("cpu")), torch.device("cpu"), {}
    for label, probability in (
        ("nnU-Net's probabilities", PROBABILITIES),
        ("every step", dict.fromkeys(PROBABILITIES, 1.0)),
    ):
        chains = available(probability, device)
        spent = dict.fromkeys(chains, 0.0)
        # Random steps make rounds unequal, by a factor of ten: the mean over many is what a training pays. In turns,
        # as a busy machine is busier at some times.
        few = rounds if probability is PROBABILITIES else max(3, rounds // 12)
        for number in range(few + 1):
            for name, chain in chains.items():
                started = time.process_time()
                chain(images)
                spent[name] += (time.process_time() - started) if number else 0.0
        row = {name: round(1e3 * seconds / (few * batch), 2) for name, seconds in spent.items()}
        out[f"{label}, CPU ms per crop of {edge}^3, mean of {few * batch}"] = row
    return out


def available(probability: dict[str, float], device: torch.device) -> dict[str, Chain]:
    """Chains of the libraries that are installed."""
    chains = {}
    for name, make in CHAINS.items():
        try:
            chains[name] = make(probability, device)
        except ImportError:
            continue
    return chains


def single_steps(batch: int, edge: int) -> dict[str, dict[str, float]]:
    """Each step alone, on every sample."""
    device, out = torch.device("cpu"), {}
    images = crops(batch, edge, device)
    for step in PROBABILITIES:
        probability = {name: float(name == step) for name in PROBABILITIES}
        row = {name: CHAINS[name](probability, device) for name in ("medssl", "MONAI")}
        out[step] = {name: round(cpu_ms([lambda c=chain: c(images)] * 4) / batch, 2) for name, chain in row.items()}
    return out


def on_gpu(edges: tuple[int, ...] = (96, 128), batch: int = 8, rounds: int = 20) -> dict[str, object] | str:
    if not torch.cuda.is_available():
        return "not measured: this machine has no GPU"
    device, out = torch.device("cuda"), {}
    for edge in edges:
        images, row = crops(batch, edge, device), {}
        for name in ("medssl", "MONAI"):
            chain = CHAINS[name](PROBABILITIES, device)
            for _ in range(5):
                chain(images)
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(rounds):
                chain(images)
            torch.cuda.synchronize()
            row[name] = round(1e3 * (time.perf_counter() - started) / (rounds * batch), 3)
        out[f"wall ms per crop of {edge}^3, batch of {batch}"] = row
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=96)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=100)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    results: dict[str, object] = {"machine": machine("monai", "torchio")}
    results["cpu"] = on_cpu(asked.batch, asked.edge, asked.rounds)
    results["single steps, CPU ms per crop"] = single_steps(asked.batch, asked.edge)
    results["gpu"] = on_gpu()
    for label, row in {**results["cpu"], **results["single steps, CPU ms per crop"]}.items():
        ratios = ", ".join(f"{n} {v:.1f} ms = {v / row['medssl']:.1f}x" for n, v in row.items() if n != "medssl")
        print(f"{label}: medssl {row['medssl']:.1f} ms, {ratios}")
    print(f"GPU: {results['gpu']}")
    print(f"written: {write_results('augmentation', results)}")


if __name__ == "__main__":
    main()
