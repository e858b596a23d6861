"""Where the frames of a segmentation lie on the grid of a scan: exactly, or not at all."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medssl.archive.labels.label_map import Canvas
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

# How far a corner of a frame may lie from a voxel's centre, in voxels along X, Y, Z. As for NIfTI labels, but between
# slices more: a scan has its slices evenly spaced, the positions that a frame repeats are rounded (F_JITTER).
_OFF_GRID = np.array([0.05, 0.05, 0.25])

Vector = tuple[float, ...]


@dataclass(frozen=True)
class FramePlane:
    """The plane of a frame, LPS mm: centre of its first pixel, directions of a row and a column, pixel spacing (between
    rows, between columns), and the distance of slices where the object tells it.
    """

    position_mm: Vector
    orientation: Vector
    pixel_spacing_mm: Vector
    slice_step_mm: float | None = None


@dataclass(frozen=True)
class Placement:
    """A frame on a grid. axes: image axis along its columns' index, its rows' index, and across it. start: voxel of its
    first pixel. signs: whether the indices run with the image's.
    """

    axes: tuple[int, int, int]
    start: tuple[int, int, int]
    signs: tuple[int, int]

    @property
    def across(self) -> int:
        """The voxel index that all pixels of the frame share."""
        return self.start[self.axes[2]]


def placement(plane: FramePlane, shape: tuple[int, int], canvas: Canvas) -> Placement:
    """Where a frame of (rows, columns) lies. Raises Rejected with LABEL_GRID where its pixels are not voxels."""
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    origin = np.array(plane.position_mm)
    down_mm, right_mm = plane.pixel_spacing_mm
    first = canvas.to_index(origin)
    right = canvas.to_index(origin + row * right_mm) - first
    down = canvas.to_index(origin + column * down_mm) - first
    axes = int(np.abs(right).argmax()), int(np.abs(down).argmax())
    if axes[0] == axes[1] or not np.isfinite([first, right, down]).all() or np.abs(first).max() > 1e6:
        raise Rejected(Reason.LABEL_GRID, "a frame is not parallel to any plane of the scan")
    signs = (1 if right[axes[0]] > 0 else -1, 1 if down[axes[1]] > 0 else -1)
    start = np.rint(first)
    rows, columns = shape
    off = 0.0
    for i, j in ((0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)):
        meant = start.copy()
        meant[axes[0]] += signs[0] * j
        meant[axes[1]] += signs[1] * i
        off = max(off, float((np.abs(first + i * down + j * right - meant) / _OFF_GRID).max()))
    if off > 1:
        raise Rejected(Reason.LABEL_GRID, f"a corner of a frame is {off:.3g} times farther off the grid than allowed")
    x, y, z = (int(value) for value in start)
    return Placement((*axes, 3 - axes[0] - axes[1]), (x, y, z), signs)


def paint_frame(mask: npt.NDArray[np.bool_], place: Placement, value: int, canvas: Canvas) -> bool:
    """Draw a frame (rows, columns) where it lies and say whether any of it is within the scan; the rest is cut off."""
    if not 0 <= place.across < canvas.shape[place.axes[2]]:
        return False
    where: list[slice | int] = [place.across] * 3
    part = mask
    # Along the frame's axis 1 (columns) first, then along its axis 0 (rows).
    for side, (axis, sign) in enumerate(zip(place.axes[:2], place.signs, strict=True)):
        frame_axis = 1 - side
        begin, size = place.start[axis], canvas.shape[axis]
        count = mask.shape[frame_axis]
        first, last = (begin, begin + count - 1) if sign > 0 else (begin - count + 1, begin)
        low, high = max(first, 0), min(last, size - 1)
        if low > high:
            return False
        if sign < 0:
            part = np.flip(part, frame_axis)
        within = slice(low - first, high - first + 1)
        part = part[:, within] if frame_axis else part[within]
        where[axis] = slice(low, high + 1)
    canvas.paint(tuple(where), part if place.axes[1] < place.axes[0] else part.T, value)
    return True
