"""Volumes, their affines, and the only conversion between array axes and tensor axes.

Arrays on disk are (X, Y, Z): index i runs along the first axis. A 4x4 affine maps (i, j, k, 1) to RAS millimetres.
Tensors are (B, C, D, H, W) with D = Z, H = Y, W = X, so that a slice of a tensor is an axial picture, and as nnU-Net
has it.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from medssl.shapes import Shape3D, Spacing3D

AFFINE_TOLERANCE_MM = 1e-3

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Volume:
    """Voxels with a proven position in the patient.

    voxels: (X, Y, Z), in the modality's physical units (HU for CT). affine_ras_mm: (4, 4), voxel index to RAS mm.
    """

    voxels: npt.NDArray[np.generic]
    affine_ras_mm: npt.NDArray[np.float64]

    @property
    def shape(self) -> Shape3D:
        """(X, Y, Z) in voxels."""
        x, y, z = self.voxels.shape
        return x, y, z

    @property
    def spacing_mm(self) -> Spacing3D:
        """Edge lengths of a voxel along X, Y, Z in mm."""
        return spacing_mm(self.affine_ras_mm)


def spacing_mm(affine_ras_mm: npt.NDArray[np.float64]) -> Spacing3D:
    """Edge lengths of a voxel along X, Y, Z in mm: the lengths of the affine's columns."""
    x, y, z = np.linalg.norm(affine_ras_mm[:3, :3], axis=0)
    return float(x), float(y), float(z)


def to_tensor_axes(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """View of an (X, Y, Z) array as (D, H, W) = (Z, Y, X); no copy."""
    return array.transpose(2, 1, 0)


def to_array_axes(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """View of a (D, H, W) array as (X, Y, Z); no copy. The inverse of `to_tensor_axes`."""
    return array.transpose(2, 1, 0)


def to_ras(volume: Volume) -> Volume:
    """The same voxels with axes flipped and permuted so that i, j, k run closest to Right, Anterior, Superior; no
    resampling.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(volume.affine_ras_mm)
    voxels = apply_orientation(volume.voxels, orientation)
    return Volume(voxels, volume.affine_ras_mm @ inv_ornt_aff(orientation, volume.shape))


def same_grid(a: Volume, b: Volume, *, tolerance_mm: float = AFFINE_TOLERANCE_MM) -> bool:
    """Whether two volumes have the same shape and put every voxel within `tolerance_mm` of the same position."""
    if a.shape != b.shape:
        return False
    corners = np.array(
        [[i, j, k, 1.0] for i in (0, a.shape[0] - 1) for j in (0, a.shape[1] - 1) for k in (0, a.shape[2] - 1)]
    )
    distance = np.linalg.norm(corners @ (a.affine_ras_mm - b.affine_ras_mm).T, axis=1)
    return bool(distance.max() <= tolerance_mm)
