"""The label of one scan while its structures are drawn, later ones on top."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


class LabelMap:
    """Label values on the grid of a scan.

    Attributes:
        values: (X, Y, Z) label values, 0 for background.
        step_mm: Voxel edges.
        overlapping: Whether a structure was drawn over another one.
    """

    def __init__(self, shape: tuple[int, int, int], affine_ras_mm: npt.NDArray[np.float64]) -> None:
        self.shape = shape
        self._to_voxels = np.linalg.inv(affine_ras_mm)
        self.step_mm = np.linalg.norm(affine_ras_mm[:3, :3], axis=0)
        self.values = np.zeros(shape, np.uint8, order="F")  # contiguous slices, for frames and contours
        self.overlapping = False

    def draw(self, region: tuple[slice | int, ...], mask: Mask, value: int) -> None:
        """Set the voxels of a region of the grid to `value` where `mask`, of the region's shape, is true."""
        voxels = self.values[region]
        before = voxels[mask]
        self.overlapping |= bool(np.any((before != 0) & (before != value)))
        voxels[mask] = value

    def draw_over(self, top: "LabelMap") -> None:
        """Draw another label map of the same grid on top of this one."""
        covered = (top.values != 0) & (self.values != 0) & (top.values != self.values)
        self.overlapping |= top.overlapping or bool(covered.any())
        np.copyto(self.values, top.values, where=top.values != 0)

    def to_index(self, points_lps_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Fractional voxel indices (..., 3) of points in DICOM's frame (LPS, mm)."""
        linear = self._to_voxels[:3, :3] * (-1.0, -1.0, 1.0)
        index: npt.NDArray[np.float64] = points_lps_mm @ linear.T + self._to_voxels[:3, 3]
        return index


def stride(slice_indices: Iterable[int]) -> int:
    """The greatest common divisor of the distances between slices; 1 for fewer than three slices."""
    ordered = np.array(sorted(slice_indices))
    return int(np.gcd.reduce(np.diff(ordered))) if len(ordered) > 2 else 1
