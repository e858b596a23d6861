"""The batched spatial transform: affine, mirroring, quarter turns and elastic deformation in one resample."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.randomness import SampleRandom
from medssl.views.affine import about_the_middle, affine_matrix, elastic_displacement, warp
from medssl.views.batch import BatchTransform, Parameters, Range, Stream, around_zero
from medssl.views.on_device import chosen, on_device

Ranges = Sequence[float | Range]


class BatchRandAffine(BatchTransform):
    """Everything spatial of one patch at once, as RandAffine: what lies beyond the edge is the sample's darkest value.

    rotate_range (radians, three), shear_range (six), translate_range (voxels, three), scale_range (three, 1 is added):
    per axis d, h, w a number f for [-f, f], or a pair. flip_prob: chance of mirroring each axis. rotate90: quarter
    turns in the h-w plane, where its edges are equal. elastic_voxels: largest displacement of the control points of a
    smooth deformation; elastic_points: how many per axis.

    Crops of the plan (`Crop`) turn and zoom as well, and read beyond the patch to fill its corners: prefer them. This
    is for geometry that must happen after the patch was cut.
    """

    def __init__(
        self,
        prob: float = 0.1,
        rotate_range: Ranges = (),
        shear_range: Ranges = (),
        translate_range: Ranges = (),
        scale_range: Ranges = (),
        flip_prob: tuple[float, float, float] = (0.0, 0.0, 0.0),
        rotate90: bool = False,
        elastic_voxels: float = 0.0,
        elastic_points: int = 7,
    ) -> None:
        super().__init__(prob)
        if elastic_points < 4:
            raise ConfigError(
                f"BatchRandAffine has elastic_points={elastic_points}. A smooth deformation needs 4 at least."
            )
        self.ranges = {
            "rotate": _padded(rotate_range, 3),
            "shear": _padded(shear_range, 6),
            "translate": _padded(translate_range, 3),
            "scale": _padded(scale_range, 3) + 1.0,
        }
        self.flip_prob, self.rotate90 = flip_prob, rotate90
        self.elastic_voxels, self.elastic_points = elastic_voxels, elastic_points

    def parameters(self, stream: Stream, images: Tensor) -> Parameters:
        """matrix: (B, 3, 4) output to input voxel.

        control: (B, 3, points, points, points) voxels, where there is a deformation.
        """
        drawn = {name: _draw(stream, name, ranges) for name, ranges in self.ranges.items()}
        centred = affine_matrix(
            rotate_rad=drawn["rotate"], shear=drawn["shear"], translate_voxels=drawn["translate"], scale=drawn["scale"]
        )
        turn = on_device(self._turns(stream, images), images.device)
        centred = torch.cat([centred[:, :, :3] @ turn, centred[:, :, 3:]], dim=2)
        size = (images.shape[2], images.shape[3], images.shape[4])
        parameters = {"matrix": about_the_middle(centred, source=size, target=size)}
        if self.elastic_voxels > 0:
            shape = (3, *(self.elastic_points,) * 3)
            parameters["control"] = stream.uniform("elastic", -self.elastic_voxels, self.elastic_voxels, shape)
        return parameters

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """The images after one linear resample."""
        return self._warp(images, parameters, labels=False, pad_value=images.amin(dim=(1, 2, 3, 4)))

    def apply_to_labels(self, labels: Tensor, parameters: Parameters) -> Tensor:
        """(B, 1, D, H, W) labels after the same geometry: nearest voxels, 0 beyond the edge."""
        return self._warp(labels, parameters, labels=True, pad_value=None)

    def with_labels(
        self, images: Tensor, labels: Tensor, random: SampleRandom | None = None, name: str = ""
    ) -> tuple[Tensor, Tensor]:
        """Changed copies of images and their labels."""
        stream = self.stream(random or self.own_random(images), name)
        rows = np.flatnonzero(stream.happens(self.prob)).tolist()
        images, labels = images.clone(), labels.clone()
        if rows:
            where = chosen(rows, images.device)
            parameters = self.parameters(stream.of(rows), images[where])
            images[where] = self.apply(images[where], parameters)
            labels[where] = self.apply_to_labels(labels[where], parameters)
        return images, labels

    def _warp(self, volumes: Tensor, parameters: Parameters, *, labels: bool, pad_value: Tensor | None) -> Tensor:
        size = (volumes.shape[2], volumes.shape[3], volumes.shape[4])
        control = parameters.get("control")
        bent = None if control is None else elastic_displacement(control, size)
        return warp(volumes, parameters["matrix"], size=size, displacement=bent, labels=labels, pad_value=pad_value)

    def _turns(self, stream: Stream, images: Tensor) -> np.ndarray:
        """(B, 3, 3) mirrorings and quarter turns."""
        u = stream.random("turns", (4,))
        out = np.eye(3, dtype=np.float32) * np.where(u[:, :3] < np.array(self.flip_prob), -1.0, 1.0)[:, None, :]
        if self.rotate90 and images.shape[3] == images.shape[4]:
            quarter = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
            out = np.stack([np.linalg.matrix_power(quarter, int(4 * turn)) for turn in u[:, 3]]) @ out
        return out.astype(np.float32)


def _draw(stream: Stream, parameter: str, ranges: np.ndarray) -> Tensor:
    """(B, axes) from one range per axis, on the device."""
    u = stream.uniform(parameter, 0.0, 1.0, (len(ranges),))
    low, high = on_device(ranges.astype(np.float32), u.device).unbind(dim=1)
    return low + u * (high - low)


def _padded(ranges: Ranges, length: int) -> np.ndarray:
    """(length, 2) lowest and highest value; axes that are not named do not move."""
    if len(ranges) > length:
        raise ConfigError(f"BatchRandAffine was given {len(ranges)} ranges where there are {length} axes.")
    pairs = [around_zero(value) for value in ranges]
    return np.array(pairs + [(0.0, 0.0)] * (length - len(pairs)), np.float64)
