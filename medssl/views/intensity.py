"""The standard chain of intensity changes: batched transforms with nnU-Net's probabilities and ranges."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.views.artefacts import BatchRandGaussianNoise, BatchRandGaussianSmooth, BatchRandSimulateLowResolution
from medssl.views.batch import BatchCompose, LogUniform, Numbers, Stream
from medssl.views.brightness import (
    BatchRandAdjustContrast,
    BatchRandScaleIntensity,
    BatchRandScaleIntensityFixedMean,
    BatchRandShiftIntensity,
)

# Chances and ranges are those of nnU-Net's training (nnUNetTrainer.get_training_transforms), which has them from years
# of segmentation challenges; they suit contrastive views as well. Ranges are given at strength 1 and grow with it.
NOISE_CHANCE, NOISE_STD = 0.15, 0.3
BLUR_CHANCE, BLUR_SIGMA_VOXELS = 0.2, (0.5, 1.0)
SCALE_CHANCE, SCALE_LOG = 0.3, 0.25
SHIFT_CHANCE, SHIFT = 0.15, 0.1
CONTRAST_CHANCE, CONTRAST_LOG = 0.15, 0.25
LOW_RESOLUTION_CHANCE, LOW_RESOLUTION_ZOOM = 0.25, 0.5
INVERTED_GAMMA_CHANCE, GAMMA_CHANCE, GAMMA_LOG = 0.1, 0.3, 0.4

# Column of the shared draw that each transform reads, in the order of the transforms. The numbers are part of the
# product: with others, the same seed would train other weights.
COLUMNS = (2, 3, 0, 1, 5, 4, 6, 7)


class IntensityChain(BatchCompose):
    """Brightness, noise, blur, low resolution, contrast and gamma, each with its own probability per sample.

    For normalised images (mean 0, standard deviation 1).

    Args:
        strength: 0 leaves images as they are, 1 is nnU-Net's, 2 doubles the ranges; probabilities stay.
    """

    def __init__(self, strength: float = 1.0) -> None:
        if not 0.0 <= strength <= 4.0:
            raise ConfigError(f"a strength of {strength} is not between 0 and 4. 1 is the usual augmentation.")
        self.strength = strength
        sigma = (BLUR_SIGMA_VOXELS[0] * strength, BLUR_SIGMA_VOXELS[1] * strength)
        lowest_zoom = 1.0 / (1.0 + (1.0 / LOW_RESOLUTION_ZOOM - 1.0) * strength)
        exponent = LogUniform(GAMMA_LOG * strength)
        super().__init__(
            [
                BatchRandScaleIntensity(LogUniform(SCALE_LOG * strength), prob=SCALE_CHANCE),
                BatchRandShiftIntensity(SHIFT * strength, prob=SHIFT_CHANCE),
                BatchRandGaussianNoise(NOISE_CHANCE, std=NOISE_STD * strength),
                BatchRandGaussianSmooth(sigma, sigma, sigma, prob=BLUR_CHANCE),
                BatchRandSimulateLowResolution(LOW_RESOLUTION_CHANCE, (lowest_zoom, 1.0), "nearest-exact"),
                BatchRandScaleIntensityFixedMean(LogUniform(CONTRAST_LOG * strength), prob=CONTRAST_CHANCE),
                BatchRandAdjustContrast(INVERTED_GAMMA_CHANCE, exponent, invert_image=True),
                BatchRandAdjustContrast(GAMMA_CHANCE, exponent),
            ]
        )

    def __call__(
        self, images: Float[Tensor, "b c d h w"], random: SampleRandom | None = None, name: str = ""
    ) -> Float[Tensor, "b c d h w"]:
        """A changed copy; the same for the same samples under the same view, whatever else is in the batch.

        Args:
            images: to change; not written to.
            random: of the batch; without it, the chain draws from the first transform's own state.
            name: of the view, so that two views of a region differ.
        """
        if self.strength == 0.0:
            return images.clone()
        random = random or self.transforms[0].own_random(images)
        # One draw for all transforms instead of one for each: making a generator costs as much as changing a small
        # patch.
        happens, amount = np.moveaxis(random.random(f"{name}/intensity", (2, len(COLUMNS))), 1, 0)  # (B, columns) each
        streams = [SharedStream(random, name, happens=happens[:, c], amount=amount[:, c]) for c in COLUMNS]
        return self.change(images, streams)


class SharedStream(Stream):
    """A stream that answers from two numbers per sample, drawn before: whether the transform happens, and one amount
    for all its parameters, so that a blur is as wide along every axis. Noise is drawn as in any stream.
    """

    def __init__(self, random: SampleRandom, name: str, *, happens: Numbers, amount: Numbers) -> None:
        super().__init__(random, name)
        self._happens, self._amount = happens, amount

    def random(self, parameter: str, shape: tuple[int, ...] = ()) -> Numbers:
        """(B,) in [0, 1); transforms that need more than one number per parameter cannot share."""
        return self._happens if parameter == "happens" else self._amount

    def of(self, rows: Sequence[int]) -> "SharedStream":
        """The same stream for some samples of the batch."""
        index = list(rows)
        return SharedStream(self._random.of(rows), self._name, happens=self._happens[index], amount=self._amount[index])
