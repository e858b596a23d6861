"""On which grid a scan is stored, and the way back to the scan's own grid."""

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from medssl.errors import DataError
from medssl.geometry import Volume, to_array_axes, to_ras
from medssl.shapes import Spacing3D
from medssl.store.resampling import resample_axis

# Bounds of a target spacing: beyond them a typing error would fill the disk, or leave a scan of a few voxels.
Millimetres = Annotated[float, Field(ge=0.05, le=50.0)]
Spacing = Literal["native"] | tuple[Millimetres, Millimetres, Millimetres]
Packing = Literal["lz4", "none"]

PARALLEL_TOLERANCE = 1e-3
SPACING_TOLERANCE = 1e-3


class StorePolicy(BaseModel):
    """How scans are put on the grid that training reads.

    Orientation is always RAS; intensities stay in physical units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_mm: dict[str, Spacing] = Field(
        default={}, description="Target spacing along X, Y, Z in mm, or 'native', per modality."
    )
    other_spacing_mm: Spacing = Field(default="native", description="Target spacing of modalities that are not named.")
    keep_through_plane: bool = Field(
        default=True,
        description="Whether an anisotropic scan keeps the spacing of its thickest axis instead of inventing slices.",
    )
    anisotropy: float = Field(
        # 3 is where nnU-Net treats a data set as anisotropic (ANISO_THRESHOLD).
        default=3.0,
        ge=1.0,
        description="Ratio of the largest to the smallest spacing from which a scan counts as anisotropic.",
    )
    packing: Packing = Field(
        default="lz4",
        description="How voxels lie on the disk: lz4, in packed blocks, or none, which reads two to three times as "
        "fast from memory and takes two to three times the disk.",
    )

    def target_spacing_mm(self, spacing_mm: Spacing3D, modality: str) -> Spacing3D:
        """Spacing along X, Y, Z of the stored grid, for a RAS scan of `spacing_mm`."""
        requested = self.spacing_mm.get(modality, self.other_spacing_mm)
        if requested == "native":
            return spacing_mm
        target = list(requested)
        if self.keep_through_plane and max(spacing_mm) >= self.anisotropy * min(spacing_mm):
            thickest = int(np.argmax(spacing_mm))
            target[thickest] = spacing_mm[thickest]
        return target[0], target[1], target[2]


def to_store_grid(volume: Volume, *, policy: StorePolicy, modality: str, nearest: bool = False) -> Volume:
    """The volume in RAS orientation at the spacing that the policy asks for, covering the same field of view.

    nearest: for labels. Voxels become float32 if they are resampled, and keep their type otherwise; labels always do.
    """
    ras = to_ras(volume)
    old_mm = np.array(ras.spacing_mm)
    new_mm = np.array(policy.target_spacing_mm(ras.spacing_mm, modality))
    if np.allclose(new_mm, old_mm, rtol=SPACING_TOLERANCE):
        return Volume(np.ascontiguousarray(ras.voxels), ras.affine_ras_mm)
    ratio = new_mm / old_mm
    shape = np.maximum(1, np.round(np.array(ras.shape) / ratio)).astype(int)
    first = (np.array(ras.shape) - 1) / 2 - ratio * (shape - 1) / 2
    voxels = ras.voxels
    for axis in range(3):
        if not np.isclose(ratio[axis], 1.0, rtol=SPACING_TOLERANCE):
            positions = first[axis] + ratio[axis] * np.arange(shape[axis])
            voxels = resample_axis(voxels, axis, positions, nearest=nearest)
        else:
            ratio[axis], first[axis] = 1.0, 0.0
    index_map = np.diag([*ratio, 1.0])
    index_map[:3, 3] = first
    return Volume(np.ascontiguousarray(voxels), ras.affine_ras_mm @ index_map)


def to_native_grid(
    array_dhw: npt.NDArray[np.generic], stored_affine: npt.NDArray[np.float64], native: Volume, *, nearest: bool
) -> npt.NDArray[np.generic]:
    """A (D, H, W) array on the stored grid as an (X, Y, Z) array on the scan's own grid, with the affine of `native`.

    Native voxels beyond the stored grid repeat its edge.

    Args:
        array_dhw: on the stored grid.
        stored_affine: (4, 4), stored (X, Y, Z) index to RAS mm.
        native: the scan before `to_store_grid`.
        nearest: for labels.

    Raises:
        DataError: The grids are rotated against each other, which `to_store_grid` never does.
    """
    # Native index to stored index. Both grids run along the same directions, so up to flips and swaps it is diagonal:
    # each native axis has one stored axis, and resampling goes axis by axis.
    index_map = np.linalg.inv(stored_affine) @ native.affine_ras_mm
    stored_axis = np.abs(index_map[:3, :3]).argmax(axis=0)
    along = index_map[stored_axis, range(3)]
    beside = index_map[:3, :3].copy()
    beside[stored_axis, range(3)] = 0.0
    if len(set(stored_axis)) < 3 or np.abs(beside).max() > PARALLEL_TOLERANCE * np.abs(along).max():
        raise DataError(
            f"the grids of store and scan are not parallel (index map {np.round(index_map[:3, :3], 3).tolist()}). "
            "Predict on the scan that the stored volume was made from."
        )
    voxels = to_array_axes(array_dhw).transpose(stored_axis)
    for axis in range(3):
        positions = index_map[stored_axis[axis], 3] + along[axis] * np.arange(native.shape[axis])
        voxels = resample_axis(voxels, axis, positions, nearest=nearest)
    return np.ascontiguousarray(voxels)
