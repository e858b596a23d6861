"""The standard chain of intensity changes, batched on the device, each sample with its own parameters."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.views.contrast import gamma as gamma
from medssl.views.contrast import scale_and_shift as scale_and_shift
from medssl.views.contrast import stretch_contrast as stretch_contrast
from medssl.views.fields import gaussian_noise
from medssl.views.filters import blur as blur
from medssl.views.filters import low_resolution as low_resolution
from medssl.views.on_device import chosen, on_device

# Chances and ranges are those of nnU-Net's training (nnUNetTrainer.get_training_transforms), which has them from years
# of segmentation challenges; they suit contrastive views as well. Ranges are given at strength 1 and grow with it.
NOISE_CHANCE, NOISE_STD = 0.15, 0.3
BLUR_CHANCE, BLUR_SIGMA_VOXELS = 0.2, (0.5, 1.0)
SCALE_CHANCE, SCALE_LOG = 0.3, 0.25
SHIFT_CHANCE, SHIFT = 0.15, 0.1
CONTRAST_CHANCE, CONTRAST_LOG = 0.15, 0.25
LOW_RESOLUTION_CHANCE, LOW_RESOLUTION_ZOOM = 0.25, 0.5
INVERTED_GAMMA_CHANCE, GAMMA_CHANCE, GAMMA_LOG = 0.1, 0.3, 0.4

STEPS = ("noise", "blur", "scale", "shift", "contrast", "low-resolution", "inverted-gamma", "gamma")
Shares = npt.NDArray[np.float64]


class IntensityChain:
    """Noise, blur, brightness, contrast, low resolution and gamma, each with its own chance per sample.

    For normalised images (mean 0, standard deviation 1). strength: 0 leaves images as they are, 1 is the usual, 2
    doubles the ranges; chances stay. Which samples a step applies to is decided on the host, so that only those are
    computed, and no step waits for the device.
    """

    def __init__(self, strength: float = 1.0) -> None:
        if not 0.0 <= strength <= 4.0:
            raise ConfigError(f"a strength of {strength} is not between 0 and 4. 1 is the usual augmentation.")
        self.strength = strength

    def __call__(
        self, images: Float[Tensor, "b c d h w"], random: SampleRandom, view: str
    ) -> Float[Tensor, "b c d h w"]:
        """A changed copy; the same for the same samples under the same `view`, whatever else is in the batch."""
        if self.strength == 0.0:
            return images.clone()
        happens, size = np.moveaxis(random.random(f"{view}/intensity", (2, len(STEPS))), 1, 0)  # (B, steps) each
        out = self._brighten(images, happens, size)
        for name, chance, step in self._spatial_steps(random, view) + self._curve_steps():
            index = STEPS.index(name)
            rows = np.flatnonzero(happens[:, index] < chance).tolist()
            if rows:
                where = chosen(rows, out.device)
                out[where] = step(out[where], size[rows, index], rows)
        return out

    def _brighten(self, images: Tensor, happens: Shares, size: Shares) -> Tensor:
        """Factor and shift of all samples in one pass, which is also the copy; 1 and 0 where nothing happens."""
        scale, shift = STEPS.index("scale"), STEPS.index("shift")
        factor = np.where(happens[:, scale] < SCALE_CHANCE, self._around_one(size[:, scale], SCALE_LOG), 1.0)
        moved = np.where(happens[:, shift] < SHIFT_CHANCE, (2 * size[:, shift] - 1) * SHIFT * self.strength, 0.0)
        return scale_and_shift(images, on_device(factor, images.device), on_device(moved, images.device))

    def _spatial_steps(self, random: SampleRandom, view: str) -> list["_Step"]:
        def noise(images: Tensor, size: Shares, rows: list[int]) -> Tensor:
            field = random.of(rows).noise(f"{view}/noise", tuple(images.shape[1:]))
            return gaussian_noise(images, field, on_device(size * NOISE_STD * self.strength, images.device))

        def soften(images: Tensor, size: Shares, rows: list[int]) -> Tensor:
            low, high = BLUR_SIGMA_VOXELS
            sigma = on_device((low + size * (high - low)) * self.strength, images.device)
            return blur(images, sigma[:, None].expand(-1, 3))

        def coarsen(images: Tensor, size: Shares, rows: list[int]) -> Tensor:
            lowest = 1.0 / (1.0 + (1.0 / LOW_RESOLUTION_ZOOM - 1.0) * self.strength)
            return low_resolution(images, (lowest + size * (1.0 - lowest)).tolist())

        return [
            ("noise", NOISE_CHANCE, noise),
            ("blur", BLUR_CHANCE, soften),
            ("low-resolution", LOW_RESOLUTION_CHANCE, coarsen),
        ]

    def _curve_steps(self) -> list["_Step"]:
        def contrast(images: Tensor, size: Shares, rows: list[int]) -> Tensor:
            return stretch_contrast(images, on_device(self._around_one(size, CONTRAST_LOG), images.device))

        def curve(images: Tensor, size: Shares, rows: list[int]) -> Tensor:
            return gamma(images, on_device(self._around_one(size, GAMMA_LOG), images.device))

        def inverted_curve(images: Tensor, size: Shares, rows: list[int]) -> Tensor:
            return gamma(images, on_device(self._around_one(size, GAMMA_LOG), images.device), invert=True)

        return [
            ("contrast", CONTRAST_CHANCE, contrast),
            ("inverted-gamma", INVERTED_GAMMA_CHANCE, inverted_curve),
            ("gamma", GAMMA_CHANCE, curve),
        ]

    def _around_one(self, size: Shares, log_range: float) -> Shares:
        """Factors between exp(-r) and exp(r), as likely below one as above."""
        return np.exp((2 * size - 1) * log_range * self.strength)


_Step = tuple[str, float, Callable[[Tensor, Shares, list[int]], Tensor]]
