"""A small encoder and small regions, so that a task can be tried out in milliseconds."""

import torch
from torch import Tensor

from medssl.randomness import SampleRandom
from medssl.testing import TinyEncoder

SHAPE = (16, 20, 24)


class SmallEncoder(TinyEncoder):
    """Of few channels."""

    def __init__(self, channels=(6, 12, 24), in_channels=1):
        super().__init__(in_channels=in_channels, channels=channels)


class SmallRegion:
    """Region of a batch of phantoms: the same volume for every crop, all of it inside the scan unless told."""

    def __init__(self, volume: Tensor, *, seed: int = 0, valid: Tensor | None = None, first: int = 0, crops=None):
        self.volume = volume
        self.crops = crops or {}
        self.numbers = tuple(range(first, first + len(volume)))
        self.scan_ids = tuple(f"phantom-{number}" for number in self.numbers)
        self.device, self.spacing_mm = volume.device, torch.ones(len(volume), 3)
        self.random = SampleRandom(seed, self.numbers, volume.device)
        self.inside = torch.ones_like(volume, dtype=torch.bool) if valid is None else valid
        self.scan_shape = torch.tensor(volume.shape[2:], dtype=torch.float32).expand(len(volume), 3)

    def crop(self, name: str) -> Tensor:
        return self.crops.get(name, self.volume).clone()

    def matrix(self, name: str) -> Tensor:
        return torch.eye(3, 4).expand(len(self.volume), 3, 4)

    def valid(self, name: str) -> Tensor:
        return (
            self.inside.expand_as(self.volume) if name not in self.crops else torch.ones_like(self.crops[name]).bool()
        )


def phantoms(batch: int = 2, shape=SHAPE, *, seed: int = 0) -> Tensor:
    """(B, 1, D, H, W) bodies in air: balls on a ramp in an ellipsoid, all different; mean 0, deviation 1."""
    random = torch.Generator().manual_seed(seed)
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, edge) for edge in shape), indexing="ij")
    volumes = []
    for _ in range(batch):
        ramp = torch.rand(3, generator=random) - 0.5
        body = (z / 0.9) ** 2 + (y / 0.8) ** 2 + (x / 0.95) ** 2 < 1
        volume = body * (1.0 + ramp[0] * z + ramp[1] * y + ramp[2] * x)
        for _ in range(3):
            cz, cy, cx = (torch.rand(3, generator=random) - 0.5) * 1.2
            height = 1.0 + 2.0 * torch.rand((), generator=random)
            volume = volume + height * torch.exp(-((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2) / 0.06)
        volume = volume + 0.02 * torch.randn(shape, generator=random)
        volumes.append((volume - volume.mean()) / volume.std())
    return torch.stack(volumes)[:, None]


def trained(task, views, steps: int = 30, lr: float = 3e-3):
    """Losses of `steps` steps of Adam on one batch of views, with `after_step` called as the host does."""
    optimizer = torch.optim.Adam((p for p in task.parameters() if p.requires_grad), lr=lr)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = task(views).loss
        loss.backward()
        optimizer.step()
        task.after_step(step, steps)
        losses.append(float(loss.detach()))
    return losses
