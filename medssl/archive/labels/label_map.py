"""The label of one scan while it is being drawn: structures one after the other, the later one on top."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


class Canvas:
    """Label values (X, Y, Z) on the grid of a scan. overlapping: whether a structure was drawn over another one."""

    def __init__(self, shape: tuple[int, int, int], affine_ras_mm: npt.NDArray[np.float64]) -> None:
        self.shape = shape
        self.to_voxels = np.linalg.inv(affine_ras_mm)
        self.step_mm = np.linalg.norm(affine_ras_mm[:3, :3], axis=0)
        self.values = np.zeros(shape, np.uint8, order="F")  # a slice in one piece, as frames and contours come
        self.overlapping = False

    def paint(self, where: tuple[slice | int, ...], mask: Mask, value: int) -> None:
        """Give `value` to the voxels of a part of the grid where `mask`, in the shape of that part, is true."""
        part = self.values[where]
        before = part[mask]
        self.overlapping |= bool(np.any((before != 0) & (before != value)))
        part[mask] = value

    def paint_over(self, other: "Canvas") -> None:
        """Draw a whole canvas on top of this one."""
        covered = (other.values != 0) & (self.values != 0) & (other.values != self.values)
        self.overlapping |= other.overlapping or bool(covered.any())
        np.copyto(self.values, other.values, where=other.values != 0)

    def to_index(self, points_lps_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(..., 3): points in DICOM's frame (LPS, mm) as voxel indices, fractions included."""
        linear = self.to_voxels[:3, :3] * (-1.0, -1.0, 1.0)
        index: npt.NDArray[np.float64] = points_lps_mm @ linear.T + self.to_voxels[:3, 3]
        return index


def stride(places: Iterable[int]) -> int:
    """The greatest n for which places lie n, 2n, ... slices apart; 1 for fewer than three."""
    ordered = np.array(sorted(places))
    return int(np.gcd.reduce(np.diff(ordered))) if len(ordered) > 2 else 1
