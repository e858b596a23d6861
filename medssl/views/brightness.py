"""Batched transforms that change intensities voxel by voxel, under MONAI's names."""

import numpy as np
import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.views.batch import BatchTransform, Parameters, Range, around_zero
from medssl.views.contrast import gamma, histogram_shift, scale_and_shift, window
from medssl.views.on_device import on_device


class BatchRandScaleIntensity(BatchTransform):
    """v * (1 + factor), as RandScaleIntensity. factors: the factor lies in [-factors, factors], or in the pair."""

    def __init__(self, factors: float | Range, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.factors = around_zero(factors)

    def parameters(self, random: SampleRandom, stream: str, images: Tensor) -> Parameters:
        """factor: (B,)."""
        return {"factor": random.uniform(f"{stream}/factor", *self.factors)}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        factor = parameters["factor"]
        return scale_and_shift(images, 1.0 + factor, torch.zeros_like(factor))


class BatchRandShiftIntensity(BatchTransform):
    """v + offset, as RandShiftIntensity. offsets: the offset lies in [-offsets, offsets], or in the pair."""

    def __init__(self, offsets: float | Range, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.offsets = around_zero(offsets)

    def parameters(self, random: SampleRandom, stream: str, images: Tensor) -> Parameters:
        """offset: (B,)."""
        return {"offset": random.uniform(f"{stream}/offset", *self.offsets)}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return scale_and_shift(images, torch.ones_like(parameters["offset"]), parameters["offset"])


class BatchRandAdjustContrast(BatchTransform):
    """Gamma over each sample's range, as RandAdjustContrast.

    gamma: the exponent lies in this pair, or in [0.5, gamma].
    """

    def __init__(self, prob: float = 0.1, gamma: float | Range = (0.5, 4.5), invert_image: bool = False) -> None:
        super().__init__(prob)
        self.gamma = gamma if isinstance(gamma, tuple) else (0.5, float(gamma))
        if min(self.gamma) <= 0:
            raise ConfigError(f"BatchRandAdjustContrast has gamma={gamma}. Exponents must be above 0.")
        self.invert_image = invert_image

    def parameters(self, random: SampleRandom, stream: str, images: Tensor) -> Parameters:
        """gamma: (B,)."""
        return {"gamma": random.uniform(f"{stream}/gamma", *self.gamma)}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return gamma(images, parameters["gamma"], invert=self.invert_image)


class BatchRandHistogramShift(BatchTransform):
    """A rising piecewise linear curve over each sample's range, as RandHistogramShift.

    num_control_points: or a range of it.
    """

    def __init__(self, num_control_points: int | tuple[int, int] = 10, prob: float = 0.1) -> None:
        super().__init__(prob)
        pair = num_control_points if isinstance(num_control_points, tuple) else (num_control_points,) * 2
        if min(pair) < 3:
            raise ConfigError(f"BatchRandHistogramShift has num_control_points={num_control_points}. 3 is the least.")
        self.num_control_points = (min(pair), max(pair))

    def parameters(self, random: SampleRandom, stream: str, images: Tensor) -> Parameters:
        """curve: (B, most points) heights in 0..1. points: (B,) how many of them are used."""
        least, most = self.num_control_points
        shares = random.random(f"{stream}/curve", (most,))
        points = least + (shares[:, 0] * (most - least + 1)).astype(int)
        curve = np.linspace(np.zeros(len(points)), (most - 1) / (points - 1), most, axis=1)
        for i in range(1, most - 1):
            # The next point still stands where it was: as in MONAI, each point moves between its neighbours.
            moved = curve[:, i - 1] + shares[:, i] * (curve[:, i + 1] - curve[:, i - 1])
            curve[:, i] = np.where(i < points - 1, moved, curve[:, i])
        move = {"curve": curve, "points": points}
        return {k: on_device(v.astype(np.float32), images.device) for k, v in move.items()}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return histogram_shift(images, parameters["curve"], parameters["points"])


class BatchRandWindow(BatchTransform):
    """Another window on a CT: clipped to [low, high] and stretched over the range, as ScaleIntensityRange(clip=True)
    does.

    low, high: ranges of the two ends, on the scale of the images (normalised CT: -2.5 is air, 0 water, 2.5 dense bone).
    """

    def __init__(self, low: Range = (-2.5, -0.5), high: Range = (0.5, 2.5), prob: float = 0.1) -> None:
        super().__init__(prob)
        if low[1] >= high[0]:
            raise ConfigError(
                f"BatchRandWindow has low={low} and high={high}: a window could be empty. Keep them apart."
            )
        self.low, self.high = low, high

    def parameters(self, random: SampleRandom, stream: str, images: Tensor) -> Parameters:
        """low, high: (B,)."""
        return {end: random.uniform(f"{stream}/{end}", *getattr(self, end)) for end in ("low", "high")}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return window(images, parameters["low"], parameters["high"])
