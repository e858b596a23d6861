"""A memory of the last vectors of all ranks: for negatives (moco), balanced codes (swav) and clustering."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.views.on_device import on_device


class Queue(nn.Module):
    """The last `length` vectors, first in, first out; saved with the task, and the same on every rank.

    Args:
        length: number of vectors.
        features: length of a vector.

    Attributes:
        vectors: (length, features). Slots that are still empty hold random directions, as in MoCo, the same in every
            run.
        owners: (length,) the scan of each vector as a number of `scan_numbers`; 0 if it was not given.
        written: how many vectors have come in so far.
    """

    vectors: Tensor
    owners: Tensor
    written: Tensor

    def __init__(self, length: int, features: int) -> None:
        super().__init__()
        start = torch.randn(length, features, generator=torch.Generator().manual_seed(0))
        self.register_buffer("vectors", F.normalize(start, dim=1))
        self.register_buffer("owners", torch.zeros(length, dtype=torch.int64))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, newest: Float[Tensor, "n f"], owners: Int[Tensor, "n"] | None = None) -> None:
        """Overwrite the oldest vectors with new ones, which the caller has gathered from all ranks.

        Args:
            newest: in order; of more than `length`, the last ones stay.
            owners: of each vector.
        """
        length = len(self.vectors)
        newest = newest.detach()[-length:].to(self.vectors.dtype)
        slots = (self.written + torch.arange(len(newest), device=newest.device)) % length
        self.vectors.index_copy_(0, slots, newest)
        self.owners.index_copy_(0, slots, torch.zeros_like(slots) if owners is None else owners[-length:])
        self.written += len(newest)

    def filled(self) -> Float[Tensor, "n f"]:
        """The vectors that have come in, at most `length`. Waits for the device to learn how many."""
        return self.vectors[: min(int(self.written), len(self.vectors))]

    def is_filled(self) -> Float[Tensor, "length"]:
        """1 for a slot that has been written, 0 for one that is still empty."""
        slots = torch.arange(len(self.vectors), device=self.vectors.device)
        return (slots < self.written).to(self.vectors.dtype)


def scan_numbers(scan_ids: Sequence[str], device: torch.device) -> Int[Tensor, "b"]:
    """A positive number for each scan, the same in every process, to find samples of the same scan."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in scan_ids)
    return on_device([1 + int.from_bytes(digest, "little") % (2**62) for digest in digests], device)
