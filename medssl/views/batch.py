"""What all batched transforms share: MONAI's base class, chances per sample, and where random numbers come from."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from monai.transforms import RandomizableTransform
from torch import Tensor

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.views.on_device import chosen

Parameters = dict[str, Tensor]
Range = tuple[float, float]


class BatchTransform(RandomizableTransform):  # type: ignore[misc]  # monai publishes no types
    """A random change of a batch. prob: chance per sample."""

    def __init__(self, prob: float = 0.1) -> None:
        if not 0.0 <= prob <= 1.0:
            raise ConfigError(f"{type(self).__name__} has prob={prob}. A probability lies between 0 and 1.")
        RandomizableTransform.__init__(self, prob)

    def __call__(self, images: Tensor, random: SampleRandom | None = None, name: str = "") -> Tensor:
        """A changed copy of (B, C, D, H, W) images. name: tells two transforms of one kind in one view apart."""
        out = self.change(images, random or self.own_random(images), name, owned=False)
        return images.clone() if out is images else out

    def change(self, images: Tensor, random: SampleRandom, name: str, *, owned: bool) -> Tensor:
        """The images with the change in those samples to which it happens; the same tensor where it happens to none.

        owned: whether `images` may be written to, so that only the changed samples are copied.
        """
        stream = f"{name}/{type(self).__name__}"
        rows = np.flatnonzero(random.random(f"{stream}/happens") < self.prob).tolist()
        if not rows:
            return images
        if len(rows) == len(images):
            return self.apply(images, self.parameters(random, stream, images))
        out = images if owned else images.clone()
        for group in together(rows, images):
            where = chosen(group, images.device)
            out[where] = self.apply(out[where], self.parameters(random.of(group), stream, out[where]))
        return out

    def own_random(self, images: Tensor) -> SampleRandom:
        """SampleRandom from this transform's own random state: `set_random_state` makes them repeatable."""
        return SampleRandom(int(self.R.randint(2**31 - 1)), range(len(images)), images.device)

    @abstractmethod
    def parameters(self, random: SampleRandom, stream: str, images: Tensor) -> Parameters:
        """One row of parameters per sample."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """A new tensor: the images changed with these parameters."""


class BatchCompose:
    """Transforms one after the other on one batch; each draws from a stream of its own."""

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, images: Tensor, random: SampleRandom | None = None, name: str = "") -> Tensor:
        """A changed copy. name: of the view, so that two views of a region differ."""
        out = images
        for position, transform in enumerate(self.transforms):
            own = random or transform.own_random(images)
            out = transform.change(out, own, f"{name}/{position}", owned=out is not images)
        return images.clone() if out is images else out


def together(rows: list[int], images: Tensor) -> list[list[int]]:
    """Chosen samples in groups that are computed at once: all on a GPU; runs of neighbours on a CPU, where copies
    cost more than calls.
    """
    if images.device.type != "cpu":
        return [rows]
    starts = [i for i, row in enumerate(rows) if i == 0 or row != rows[i - 1] + 1]
    return [rows[a:b] for a, b in zip(starts, [*starts[1:], len(rows)], strict=True)]


def around_zero(value: float | Range) -> Range:
    """(-value, value) of a number; a pair as it is."""
    if isinstance(value, tuple):
        return value
    return (-abs(float(value)), abs(float(value)))
