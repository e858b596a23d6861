"""The grid of slices with one orientation: order, spacing, gaps and shear. Pure geometry, in LPS up to the affine.

Order and spacing come only from the positions projected on the slice normal. Tolerances follow reference/ingest.md 1b;
for thin slices an absolute bound is stricter than the 1 % of IDC's volume_geometry_index.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag, Reason

# Slices closer than this share a position: less than the smallest accepted spacing, more than rounding errors.
SAME_POSITION_MM = 0.01
_EVEN_FRACTION, _EVEN_MM = 0.02, 0.1
_SHIFT_MM = 0.1
_MAX_TILT_DEG = 35.0
# A smaller tilt moves the last slice by less than the rounding of positions.
_MIN_TILT_DEG = 0.05
_ORTHONORMAL = 0.01
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Affine of ordered slices.

    Attributes:
        affine_ras_mm: (4, 4), voxel index to RAS.
        tilt_deg: Angle between the normal and the line through the slices.
        flags: What was noticed.
    """

    affine_ras_mm: npt.NDArray[np.float64]
    tilt_deg: float
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Run:
    """Consecutive slices without a gap: indices [start, stop) into the sorted positions."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of slices."""
        return self.stop - self.start


def normal_of(orientation: Sequence[float]) -> Points:
    """Unit normal of a slice, row direction times column direction.

    Raises Rejected with BAD_GEOMETRY if the two are not orthonormal within 1 %.
    """
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not all(math.isfinite(length) and abs(length - 1) <= _ORTHONORMAL for length in lengths):
        raise Rejected(Reason.BAD_GEOMETRY, f"direction cosines of length {lengths[0]:.3f} and {lengths[1]:.3f}")
    if abs(float(row @ column)) > _ORTHONORMAL:
        raise Rejected(Reason.BAD_GEOMETRY, f"row and column directions with a cosine of {float(row @ column):.3f}")
    normal: Points = np.cross(row, column)
    return normal / float(np.linalg.norm(normal))


def runs_of(depths_mm: Points, *, min_slices: int) -> tuple[list[Run], Flag | None, Rejected | None]:
    """Runs of evenly spaced slices.

    Args:
        depths_mm: Sorted, distinct positions along the normal.
        min_slices: Shorter runs are left out.

    Returns:
        The runs, the flag for their scans, and why the other slices are left out. All slices make one run if they are
        evenly spaced. If slices are missing, only the longest gap-free run counts (F_TRIMMED); if the spacing changes,
        every even run does (F_SPLIT_SPACING).
    """
    count = len(depths_mm)
    if count < min_slices:
        return [], None, Rejected(Reason.TOO_FEW_SLICES, f"{count} slices at one orientation, below {min_slices}")
    if count < 3 or _is_even(depths_mm):
        return [Run(0, count)], None, None
    steps = np.diff(depths_mm)
    pieces = _gap_free(steps)
    if pieces is not None:
        gap = Rejected(Reason.MISSING_SLICES, f"{len(pieces) - 1} gaps between {count} slices")
        longest = max(pieces, key=lambda run: (run.length, -run.start))
        return ([longest] if longest.length >= max(min_slices, 2) else []), Flag.F_TRIMMED, gap
    uneven = Rejected(Reason.UNEVEN_SPACING, f"slice distances from {steps.min():.3g} to {steps.max():.3g} mm")
    even = [run for run in _even_pieces(steps) if run.length >= max(min_slices, 3)]
    return even, Flag.F_SPLIT_SPACING, uneven


def grid_of(
    positions_mm: Points,
    orientation: Sequence[float],
    pixel_spacing_mm: tuple[float, float],
    *,
    thickness_mm: float | None,
) -> Grid:
    """Affine of slices in order along the normal. Its third column is the mean step, sheared if the gantry was tilted.

    Args:
        positions_mm: (n, 3) LPS centre of each slice's first voxel.
        orientation: Direction of a row, then of a column.
        pixel_spacing_mm: Distance between rows, then between columns.
        thickness_mm: Slice thickness in the header, used only for a single slice.

    Raises:
        Rejected: BAD_GEOMETRY, NO_GEOMETRY, SLICE_SHIFT or TILT_TOO_LARGE.
    """
    if not all(math.isfinite(edge) and edge > 0 for edge in pixel_spacing_mm):
        raise Rejected(Reason.BAD_GEOMETRY, f"pixel spacing of {pixel_spacing_mm[0]:g} x {pixel_spacing_mm[1]:g} mm")
    normal = normal_of(orientation)
    flags: tuple[Flag, ...]
    if len(positions_mm) == 1:
        if not thickness_mm or not math.isfinite(thickness_mm) or thickness_mm <= 0:
            raise Rejected(Reason.NO_GEOMETRY, "a single slice without thickness")
        step, flags = normal * thickness_mm, (Flag.F_SINGLE_SLICE,)
    else:
        step, flags = _mean_step(positions_mm, normal)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    tilt_deg = math.degrees(math.acos(min(1.0, abs(float(step @ normal)) / float(np.linalg.norm(step)))))
    if tilt_deg > _MAX_TILT_DEG:
        raise Rejected(Reason.TILT_TOO_LARGE, f"slices are sheared by {tilt_deg:.1f} degrees")
    affine = np.eye(4)
    # PS3.3 C.7.6.2.1.1: the column index moves along the first direction by the second spacing, and vice versa.
    affine[:3, 0] = row / np.linalg.norm(row) * pixel_spacing_mm[1]
    affine[:3, 1] = column / np.linalg.norm(column) * pixel_spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions_mm[0]
    tilted = (Flag.F_TILT,) if tilt_deg > _MIN_TILT_DEG else ()
    return Grid(_LPS_TO_RAS @ affine, tilt_deg, (*flags, *tilted))


def _mean_step(positions_mm: Points, normal: Points) -> tuple[Points, tuple[Flag, ...]]:
    """The step from one slice to the next, and the flags of slices that lie a little off it."""
    count = len(positions_mm)
    step: Points = (positions_mm[-1] - positions_mm[0]) / (count - 1)
    offset = positions_mm - (positions_mm[0] + np.arange(count)[:, None] * step)
    along = np.abs(offset @ normal).max()
    sideways = np.linalg.norm(offset - (offset @ normal)[:, None] * normal, axis=1).max()
    if sideways > _SHIFT_MM:
        problem = f"slices lie up to {sideways:.2f} mm beside the line through the first and last"
        raise Rejected(Reason.SLICE_SHIFT, problem)
    return step, (Flag.F_JITTER,) if along > SAME_POSITION_MM else ()


def _tolerance_mm(step_mm: float) -> float:
    """How far a slice may lie from its even position: 2 % or 0.1 mm, but never more than a quarter of the step."""
    return max(_EVEN_FRACTION * step_mm, min(_EVEN_MM, step_mm / 4))


def _is_even(depths_mm: Points) -> bool:
    """Whether the depths are evenly spaced within tolerance, against the mean step."""
    step = (depths_mm[-1] - depths_mm[0]) / (len(depths_mm) - 1)
    expected = depths_mm[0] + step * np.arange(len(depths_mm))
    return bool(np.abs(depths_mm - expected).max() <= _tolerance_mm(step))


def _gap_free(steps_mm: Points) -> list[Run] | None:
    """Runs between gaps if slices are missing from an even spacing; None if the spacing itself changes."""
    # Slices are missing if most distances are one step and the others multiples of it. Three equal larger distances in
    # a row are another spacing and not gaps.
    step = float(np.median(steps_mm))
    odd = np.abs(steps_mm - step) > _tolerance_mm(step)
    multiples = np.rint(steps_mm / step)
    is_multiple = np.abs(steps_mm - multiples * step) <= 2 * _tolerance_mm(step)
    if np.count_nonzero(odd) * 2 > len(odd) or not (is_multiple & (multiples >= 2))[odd].all():
        return None
    if any(odd[i : i + 3].all() and np.ptp(multiples[i : i + 3]) == 0 for i in range(len(odd) - 2)):
        return None
    cuts = [0, *(np.flatnonzero(odd) + 1), len(steps_mm) + 1]
    return [Run(int(start), int(stop)) for start, stop in pairwise(cuts)]


def _even_pieces(steps_mm: Points) -> list[Run]:
    """Maximal runs of one step, from the front; a slice between two runs belongs to the first."""
    pieces, start = [], 0
    for index in range(1, len(steps_mm) + 1):
        first = steps_mm[start] if start < len(steps_mm) else 0.0
        if index == len(steps_mm) or abs(steps_mm[index] - first) > _tolerance_mm(float(first)):
            if index > start:
                pieces.append(Run(start, index + 1))
            start = index + 1
    return pieces
