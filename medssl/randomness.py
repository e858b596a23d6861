"""Random numbers that are a pure function of (seed, sample number, name).

Nothing here keeps state: which scan, where a region lies and how it is augmented depend on two numbers, never on the
worker, the rank, the order of calls or a restart. Built on numpy's counter-based Philox generator (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3").
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    # Workers that read the store draw nothing and import this module: torch is imported where it is used.
    import torch
    from torch import Tensor


def generator(seed: int, number: int, name: str) -> np.random.Generator:
    """Numpy generator of one stream: `name` of sample `number` under `seed`."""
    return np.random.Generator(np.random.Philox(key=_key(seed, number, name)))


def _key(seed: int, number: int, name: str) -> int:
    """128-bit key; distinct (seed, number, name) give independent streams."""
    digest = hashlib.blake2b(f"{seed}/{number}/{name}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


class SampleRandom:
    """Random parameters for a batch, each sample from its own stream.

    The same sample gets the same numbers in any batch, on any rank, in any position. Small parameters are drawn on the
    host and copied; noise the size of a volume is drawn on the device (`noise`), and then depends on the kind of device
    as well.

    Args:
        seed: of the training.
        numbers: sample numbers of the batch.
        device: of the tensors.
    """

    def __init__(self, seed: int, numbers: Sequence[int], device: "torch.device") -> None:
        self.seed, self.numbers, self.device = seed, tuple(numbers), device

    def random(self, name: str, shape: tuple[int, ...] = ()) -> npt.NDArray[np.float64]:
        """(B, *shape) in [0, 1), on the host, for decisions on what to compute: they need not wait for the device."""
        return np.stack([generator(self.seed, n, name).random(shape) for n in self.numbers])

    def uniform(self, name: str, low: float, high: float, shape: tuple[int, ...] = ()) -> "Tensor":
        """(B, *shape) float32 in [low, high)."""
        return self._on_device([generator(self.seed, n, name).uniform(low, high, shape) for n in self.numbers])

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> "Tensor":
        """(B, *shape) float32, standard normal; for small parameters."""
        return self._on_device([generator(self.seed, n, name).standard_normal(shape) for n in self.numbers])

    def chance(self, name: str, probability: float) -> "Tensor":
        """(B,) bool, each True with `probability`."""
        return self.uniform(name, 0.0, 1.0) < probability

    def permutations(self, name: str, length: int) -> "Tensor":
        """(B, length) int64, a permutation of range(length) per sample."""
        import torch

        rows = [generator(self.seed, n, name).permutation(length) for n in self.numbers]
        return torch.from_numpy(np.stack(rows)).to(self.device, non_blocking=True)

    def noise(self, name: str, shape: tuple[int, ...]) -> "Tensor":
        """(B, *shape) float32 standard normal, drawn on the device; for noise the size of a volume."""
        import torch

        out = torch.empty((len(self.numbers), *shape), device=self.device)
        stream = torch.Generator(self.device)
        for row, number in zip(out, self.numbers, strict=True):
            stream.manual_seed(_key(self.seed, number, name) & 0x7FFF_FFFF_FFFF_FFFF)
            row.normal_(generator=stream)
        return out

    def of(self, rows: Sequence[int]) -> "SampleRandom":
        """The same streams for some samples of the batch."""
        return SampleRandom(self.seed, [self.numbers[row] for row in rows], self.device)

    def _on_device(self, rows: list[Any]) -> "Tensor":
        import torch

        return torch.from_numpy(np.asarray(rows, dtype=np.float32)).to(self.device, non_blocking=True)
