"""Batched transforms that add what scanners add, under MONAI's names: noise, blur, bias field, ringing, low
resolution.
"""

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.views.batch import BatchTransform, Parameters, Range, Stream
from medssl.views.contrast import intensity_range
from medssl.views.fields import bias_field, gaussian_noise, gibbs_ringing, rician_noise
from medssl.views.filters import blur, low_resolution


class BatchRandGaussianNoise(BatchTransform):
    """v + noise, as RandGaussianNoise.

    std: of the noise, or with sample_std the largest; noise is drawn on the device.
    """

    def __init__(self, prob: float = 0.1, mean: float = 0.0, std: float = 0.1, sample_std: bool = True) -> None:
        super().__init__(prob)
        self.mean, self.std, self.sample_std = mean, std, sample_std

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """noise: (B, C, D, H, W) standard normal. std: (B,)."""
        lowest = 0.0 if self.sample_std else self.std
        return {"noise": stream.noise("noise", tuple(images.shape[1:])), "std": stream.uniform("std", lowest, self.std)}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return gaussian_noise(images, parameters["noise"], parameters["std"], mean=self.mean)


class BatchRandRicianNoise(BatchTransform):
    """sqrt((v + noise)^2 + noise^2), as RandRicianNoise. from_darkest: values count from each sample's darkest, as a
    magnitude must.

    Normalised images have their zero in the middle of the tissue, where MONAI's formula would fold dark onto bright:
    hence from_darkest.
    """

    def __init__(self, prob: float = 0.1, std: float = 1.0, sample_std: bool = True, from_darkest: bool = True) -> None:
        super().__init__(prob)
        self.std, self.sample_std, self.from_darkest = std, sample_std, from_darkest

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """real, imaginary: (B, C, D, H, W)."""
        std = stream.uniform("std", 0.0 if self.sample_std else self.std, self.std).view(-1, 1, 1, 1, 1)
        shape = tuple(images.shape[1:])
        return {part: stream.noise(part, shape).mul_(std) for part in ("real", "imaginary")}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        if not self.from_darkest:
            return rician_noise(images, parameters["real"], parameters["imaginary"])
        darkest, _ = intensity_range(images)
        return rician_noise(images - darkest, parameters["real"], parameters["imaginary"]) + darkest


class BatchRandGaussianSmooth(BatchTransform):
    """Gaussian blur, as RandGaussianSmooth (approx="erf").

    sigma_x, sigma_y, sigma_z: ranges along d, h, w in voxels.
    """

    def __init__(
        self,
        sigma_x: Range = (0.25, 1.5),
        sigma_y: Range = (0.25, 1.5),
        sigma_z: Range = (0.25, 1.5),
        prob: float = 0.1,
    ) -> None:
        super().__init__(prob)
        self.sigmas = (sigma_x, sigma_y, sigma_z)

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """sigma: (B, 3)."""
        return {
            "sigma": torch.stack([stream.uniform(str(axis), *limits) for axis, limits in enumerate(self.sigmas)], dim=1)
        }

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return blur(images, parameters["sigma"])


class BatchRandBiasField(BatchTransform):
    """v * exp(polynomial of `degree`), as RandBiasField. coeff_range: of the Legendre coefficients."""

    def __init__(self, degree: int = 3, coeff_range: Range = (0.0, 0.1), prob: float = 0.1) -> None:
        super().__init__(prob)
        if degree < 1:
            raise ConfigError(f"BatchRandBiasField has degree={degree}. It must be at least 1.")
        self.degree, self.coeff_range = degree, coeff_range

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """coefficients: (B, degree + 1, degree + 1, degree + 1), zero where the powers add up to more than the
        degree.
        """
        n = self.degree + 1
        drawn = stream.uniform("coefficients", *self.coeff_range, (n, n, n))
        power = torch.arange(n, device=drawn.device)
        total = power[:, None, None] + power[None, :, None] + power[None, None, :]
        return {"coefficients": drawn * (total <= self.degree)}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return bias_field(images, parameters["coefficients"])


class BatchRandGibbsNoise(BatchTransform):
    """Ringing from a truncated k-space, as RandGibbsNoise. alpha: range of the fraction that is cut off."""

    def __init__(self, prob: float = 0.1, alpha: Range = (0.0, 1.0)) -> None:
        super().__init__(prob)
        if not 0.0 <= alpha[0] <= alpha[1] <= 1.0:
            raise ConfigError(
                f"BatchRandGibbsNoise has alpha={alpha}. Fractions lie between 0 and 1, the smaller one first."
            )
        self.alpha = alpha

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """alpha: (B,)."""
        return {"alpha": stream.uniform("alpha", *self.alpha)}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return gibbs_ringing(images, parameters["alpha"])


class BatchRandSimulateLowResolution(BatchTransform):
    """Down by nearest voxels and up again linearly, as RandSimulateLowResolution.

    zoom_range: of the size in between.
    """

    def __init__(self, prob: float = 0.1, zoom_range: Range = (0.5, 1.0), downsample_mode: str = "nearest") -> None:
        super().__init__(prob)
        self.zoom_range, self.downsample_mode = zoom_range, downsample_mode

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """zoom: (B,), on the host: it sets the size of what is computed."""
        return {"zoom": torch.from_numpy(stream.draw("zoom", self.zoom_range))}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """See the class."""
        return low_resolution(images, parameters["zoom"].tolist(), down=self.downsample_mode)
