"""Batched transforms that change intensities voxel by voxel, under MONAI's names."""

import numpy as np
from torch import Tensor

from medssl.errors import ConfigError
from medssl.views.batch import BatchLinear, BatchTransform, LogUniform, Numbers, Parameters, Range, Stream, around_zero
from medssl.views.contrast import gamma, histogram_shift, stretch_contrast, window
from medssl.views.on_device import on_device


class BatchRandScaleIntensity(BatchLinear):
    """v * (1 + factor), as RandScaleIntensity.

    factors: the factor lies in [-factors, factors] or in the pair; a LogUniform draws 1 + factor.
    """

    def __init__(self, factors: float | Range | LogUniform, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.factors = around_zero(factors)

    def line(self, stream: Stream) -> tuple[Numbers, Numbers]:
        """1 + factor, and 0."""
        scale = _scale(stream, self.factors)
        return scale, np.zeros_like(scale)


class BatchRandShiftIntensity(BatchLinear):
    """v + offset, as RandShiftIntensity. offsets: the offset lies in [-offsets, offsets], or in the pair."""

    def __init__(self, offsets: float | Range, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.offsets = around_zero(offsets)

    def line(self, stream: Stream) -> tuple[Numbers, Numbers]:
        """1, and the offset."""
        offset = stream.draw("offset", self.offsets)
        return np.ones_like(offset), offset


class BatchRandScaleIntensityFixedMean(BatchTransform):
    """(v - mean) * (1 + factor) + mean, as RandScaleIntensityFixedMean(preserve_range=True): contrast around the mean.

    factors: as in BatchRandScaleIntensity. Values stay between the sample's darkest and brightest.
    """

    def __init__(self, factors: float | Range | LogUniform, prob: float = 0.1) -> None:
        super().__init__(prob)
        self.factors = around_zero(factors)

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """scale: (B,) 1 + factor."""
        return {"scale": on_device(_scale(stream, self.factors), images.device)}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return stretch_contrast(images, parameters["scale"])


class BatchRandAdjustContrast(BatchTransform):
    """Gamma over each sample's range, as RandAdjustContrast.

    gamma: the exponent lies in this pair, or in [0.5, gamma]. invert_image: of the negative image.
    """

    def __init__(
        self, prob: float = 0.1, gamma: float | Range | LogUniform = (0.5, 4.5), invert_image: bool = False
    ) -> None:
        super().__init__(prob)
        self.gamma = (0.5, float(gamma)) if isinstance(gamma, (int, float)) else gamma
        if not isinstance(self.gamma, LogUniform) and min(self.gamma) <= 0:
            raise ConfigError(f"BatchRandAdjustContrast has gamma={gamma}. Exponents must be above 0.")
        self.invert_image = invert_image

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """gamma: (B,)."""
        return {"gamma": on_device(stream.draw("gamma", self.gamma), images.device)}

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
            raise ConfigError(
                f"BatchRandHistogramShift has num_control_points={num_control_points}. It needs at least 3."
            )
        self.num_control_points = (min(pair), max(pair))

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """curve: (B, K) heights in 0..1, K the largest number of points. points: (B,) how many of them are used."""
        fewest, largest = self.num_control_points
        u = stream.random("curve", (largest,))
        points = fewest + (u[:, 0] * (largest - fewest + 1)).astype(int)
        curve = np.linspace(np.zeros(len(points)), (largest - 1) / (points - 1), largest, axis=1)
        for i in range(1, largest - 1):
            # The next point has not moved yet: as in MONAI, each point moves between its neighbours.
            moved = curve[:, i - 1] + u[:, i] * (curve[:, i + 1] - curve[:, i - 1])
            curve[:, i] = np.where(i < points - 1, moved, curve[:, i])
        device = images.device
        return {"curve": on_device(curve, device), "points": on_device(points.astype(np.float32), device)}

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

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """low, high: (B,)."""
        return {end: stream.uniform(end, *getattr(self, end)) for end in ("low", "high")}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return window(images, parameters["low"], parameters["high"])


def _scale(stream: Stream, factors: Range | LogUniform) -> Numbers:
    """(B,) 1 + factor."""
    drawn = stream.draw("factor", factors)
    return drawn if isinstance(factors, LogUniform) else 1.0 + drawn
