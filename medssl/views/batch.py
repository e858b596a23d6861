"""What all batched transforms share: MONAI's base class, a probability per sample, and their random numbers."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from monai.transforms import RandomizableTransform
from torch import Tensor

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.views.contrast import scale_and_shift
from medssl.views.on_device import chosen, on_device

Parameters = dict[str, Tensor]
Range = tuple[float, float]
# One number per sample, on the host.
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LogUniform:
    """In place of a range: a factor from exp(-limit) to exp(limit), as likely below 1 as above."""

    limit: float


class Stream:
    """The random numbers of one transform for one batch, each sample from its own stream.

    Args:
        random: of the batch.
        name: tells the view, and two transforms of one kind in it, apart.
    """

    def __init__(self, random: SampleRandom, name: str) -> None:
        self._random, self._name = random, name

    def happens(self, probability: float) -> npt.NDArray[np.bool_]:
        """(B,), true for the samples that the transform changes."""
        return np.asarray(self.random("happens") < probability)

    def random(self, parameter: str, shape: tuple[int, ...] = ()) -> Numbers:
        """(B, *shape) in [0, 1), on the host."""
        return self._random.random(f"{self._name}/{parameter}", shape)

    def draw(self, parameter: str, limits: Range | LogUniform) -> Numbers:
        """(B,) from a range, on the host."""
        u = self.random(parameter)
        if isinstance(limits, LogUniform):
            return np.exp((2 * u - 1) * limits.limit)
        low, high = limits
        return low + u * (high - low)

    def uniform(self, parameter: str, low: float, high: float, shape: tuple[int, ...] = ()) -> Tensor:
        """(B, *shape) float32 in [low, high), on the device."""
        return on_device(low + self.random(parameter, shape) * (high - low), self._random.device)

    def noise(self, parameter: str, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32 standard normal, drawn on the device."""
        return self._random.noise(f"{self._name}/{parameter}", shape)

    def of(self, rows: Sequence[int]) -> "Stream":
        """The same stream for some samples of the batch."""
        return Stream(self._random.of(rows), self._name)


class BatchTransform(RandomizableTransform):  # type: ignore[misc]  # monai publishes no types
    """A random change of a batch. prob: probability per sample."""

    def __init__(self, prob: float = 0.1) -> None:
        if not 0.0 <= prob <= 1.0:
            raise ConfigError(f"{type(self).__name__} has prob={prob}. A probability lies between 0 and 1.")
        RandomizableTransform.__init__(self, prob)

    def __call__(self, images: Tensor, random: SampleRandom | None = None, name: str = "") -> Tensor:
        """A changed copy of (B, C, D, H, W) images.

        Args:
            images: to change; not written to.
            random: of the batch; without it, the transform draws from its own state, as MONAI's do.
            name: tells the view, and two transforms of one kind in it, apart.
        """
        out = self.change(images, self.stream(random or self.own_random(images), name), owned=False)
        return images.clone() if out is images else out

    def stream(self, random: SampleRandom, name: str) -> Stream:
        """The random numbers of this transform under `name`."""
        return Stream(random, f"{name}/{type(self).__name__}")

    def change(self, images: Tensor, stream: Stream, *, owned: bool) -> Tensor:
        """The images with the samples changed that the stream selects; the same tensor if it selects none.

        owned: whether `images` may be written to, so that only the changed samples are copied.
        """
        rows = np.flatnonzero(stream.happens(self.prob)).tolist()
        if not rows:
            return images
        if len(rows) == len(images):
            return self.apply(images, self.parameters(stream, images))
        out = images if owned else images.clone()
        for group in grouped(rows, images):
            where = chosen(group, images.device)
            out[where] = self.apply(out[where], self.parameters(stream.of(group), out[where]))
        return out

    def own_random(self, images: Tensor) -> SampleRandom:
        """Random numbers from this transform's own state; `set_random_state` makes them repeatable."""
        return SampleRandom(int(self.R.randint(2**31 - 1)), range(len(images)), images.device)

    @abstractmethod
    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """One row of parameters per sample."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """A new tensor: the images changed with these parameters."""


class BatchLinear(BatchTransform):
    """Images * factor + offset. A compose does neighbouring ones in one pass."""

    @abstractmethod
    def line(self, stream: Stream) -> tuple[Numbers, Numbers]:
        """(B,) factors and (B,) offsets."""

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """factor, offset: (B,)."""
        factor, offset = self.line(stream)
        return {"factor": on_device(factor, images.device), "offset": on_device(offset, images.device)}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return scale_and_shift(images, parameters["factor"], parameters["offset"])


class BatchCompose:
    """Transforms one after the other on one batch, each with its own stream of random numbers."""

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, images: Tensor, random: SampleRandom | None = None, name: str = "") -> Tensor:
        """A changed copy. name: of the view, so that two views of a region differ."""
        return self.change(
            images,
            [
                transform.stream(random or transform.own_random(images), f"{name}/{position}")
                for position, transform in enumerate(self.transforms)
            ],
        )

    def change(self, images: Tensor, streams: Sequence[Stream]) -> Tensor:
        """A changed copy, with one stream of random numbers per transform."""
        out = images
        steps = zip(self.transforms, streams, strict=True)
        for linear, group in groupby(steps, key=lambda step: isinstance(step[0], BatchLinear)):
            if linear:
                out = _change_linear(
                    out, [(t, s) for t, s in group if isinstance(t, BatchLinear)], owned=out is not images
                )
                continue
            for transform, stream in group:
                out = transform.change(out, stream, owned=out is not images)
        return images.clone() if out is images else out


def _change_linear(images: Tensor, steps: Sequence[tuple[BatchLinear, Stream]], *, owned: bool) -> Tensor:
    """Neighbouring linear transforms as one multiplication and addition.

    The first pass over a batch has to copy it anyway, so it takes all samples, with a factor of 1 and an offset of 0
    for those that do not change; later passes take only those that do.
    """
    factor, offset = np.ones(len(images)), np.zeros(len(images))
    changed = np.zeros(len(images), bool)
    for transform, stream in steps:
        happens = stream.happens(transform.prob)
        a, b = transform.line(stream)
        factor, offset = np.where(happens, a * factor, factor), np.where(happens, a * offset + b, offset)
        changed |= happens
    if not owned:
        return scale_and_shift(images, on_device(factor, images.device), on_device(offset, images.device))
    rows = np.flatnonzero(changed).tolist()
    if rows:
        where, device = chosen(rows, images.device), images.device
        images[where] = scale_and_shift(images[where], on_device(factor[rows], device), on_device(offset[rows], device))
    return images


def grouped(rows: list[int], images: Tensor) -> list[list[int]]:
    """Selected samples in groups that are computed at once: all on a GPU; runs of neighbours on a CPU, where copies
    cost more than calls.
    """
    if images.device.type != "cpu":
        return [rows]
    starts = [i for i, row in enumerate(rows) if i == 0 or row != rows[i - 1] + 1]
    return [rows[a:b] for a, b in zip(starts, [*starts[1:], len(rows)], strict=True)]


def around_zero(value: float | Range | LogUniform) -> Range | LogUniform:
    """(-value, value) of a number; a range as it is."""
    if isinstance(value, (int, float)):
        return (-abs(float(value)), abs(float(value)))
    return value
