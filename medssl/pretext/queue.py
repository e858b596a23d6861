"""A memory of the last vectors of all ranks: negatives for moco, company for swav, what deepercluster and
pseudo-segmentation cluster.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.views.on_device import on_device


class Queue(nn.Module):
    """The last `length` vectors, first in, first out; saved with the task, and the same on every rank.

    Until vectors have come in, their places hold random directions (as in MoCo), the same in every run. owners: whose
    each vector is, as `scan_numbers` gives it; 0 where nobody said.
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
        """Put vectors in, in their order, over the oldest. The caller gathers them from all ranks first."""
        length = len(self.vectors)
        newest = newest.detach()[-length:].to(self.vectors.dtype)
        places = (self.written + torch.arange(len(newest), device=newest.device)) % length
        self.vectors.index_copy_(0, places, newest)
        self.owners.index_copy_(0, places, torch.zeros_like(places) if owners is None else owners[-length:])
        self.written += len(newest)

    def known(self) -> Float[Tensor, "n f"]:
        """The vectors that came in, at most `length`. Waits for the device, to know how many."""
        return self.vectors[: min(int(self.written), len(self.vectors))]

    def real(self) -> Float[Tensor, "length"]:
        """1 where a vector that came in lies, 0 where a random one still does."""
        places = torch.arange(len(self.vectors), device=self.vectors.device)
        return (places < self.written).to(self.vectors.dtype)


def scan_numbers(scan_ids: Sequence[str], device: torch.device) -> Int[Tensor, "b"]:
    """A number above 0 for each scan, by which samples of one scan know each other; the same in every process."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in scan_ids)
    return on_device([1 + int.from_bytes(digest, "little") % (2**62) for digest in digests], device)
