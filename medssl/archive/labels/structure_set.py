"""Fills the contours of a structure set (RTSTRUCT) on the grid of a scan. PS3.3 C.8.8.6.

Contours lie on the slices of their images. The affine of the scan, shear included, maps them to voxel indices, where
the even-odd rule over all contours of one structure on one slice fills them: a contour within a contour is a hole, and
a keyhole outline leaves its hole out. Nothing is drawn between slices.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from medssl.archive.dicom import label_tags
from medssl.archive.dicom.dataset import ElementSelection
from medssl.archive.dicom.label_record import read_label_object
from medssl.archive.dicom.values import ElementValues
from medssl.archive.labels.label_map import LabelMap, stride
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

# Farthest distance of a contour from a slice, in slices: both positions are rounded, half a slice would be ambiguous.
_MAX_OFF_SLICE = 0.25
_CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_MAX_INDEX = 1e6  # voxels; no patient is that large
_CROSSINGS_AT_ONCE = 1 << 20
_VALUES = frozenset({
    label_tags.CONTOUR_GEOMETRIC_TYPE, label_tags.NUMBER_OF_CONTOUR_POINTS, label_tags.CONTOUR_DATA,
    label_tags.REFERENCED_ROI_NUMBER,
})  # fmt: skip
_SEQUENCES = frozenset({label_tags.ROI_CONTOUR_SEQUENCE, label_tags.CONTOUR_SEQUENCE})
_SELECTION = ElementSelection(_VALUES, _SEQUENCES, lambda _: label_tags.LAST_OF_CONTOURS)
Points = npt.NDArray[np.float64]


class CrossingBudget:
    """Limit for the crossings of contour edges and pixel lines in one label object.

    A polygon of few bytes can have very many crossings, so the size of the file does not bound the work.
    """

    def __init__(self, crossings: int = 1 << 27) -> None:
        self._limit = self._remaining = crossings

    def spend(self, crossings: int) -> None:
        """Subtract crossings. Raises Rejected with TOO_LARGE when the budget is spent."""
        self._remaining -= crossings
        if self._remaining < 0:
            raise Rejected(Reason.TOO_LARGE, f"its contours cross more than {self._limit} lines of pixels")


def draw_structures(path: str, values: Mapping[int, int], label_map: LabelMap, *, limits: Limits) -> Rejected | None:
    """Draw structures onto the grid of a scan and return why the first of those left out cannot be drawn.

    Args:
        path: The structure set.
        values: Structure number to label value, in the order of drawing. Other structures are skipped.
        label_map: Where to draw.
        limits: How much of the file may be read.

    Raises:
        Rejected: No structure can be drawn (LABEL_CONTOURS, LABEL_OFF_SLICE), or why the file cannot be read.
    """
    contours = _contours(path, limits)
    budget = CrossingBudget()
    drawn, problem = 0, None
    for number, value in values.items():
        try:
            drawn += _draw(contours.get(number, []), value, label_map, budget)
        except Rejected as rejected:
            if rejected.reason not in (Reason.LABEL_CONTOURS, Reason.LABEL_OFF_SLICE):
                raise
            problem = problem or rejected
    if not drawn:
        raise problem or Rejected(Reason.LABEL_OFF_SLICE, "no contour lies on a slice of the scan")
    return problem


def _contours(path: str, limits: Limits) -> dict[int, list[ElementValues]]:
    """Contours by structure number. Raises Rejected."""
    values = read_label_object(path, _SELECTION, limits=limits).values
    contours: dict[int, list[ElementValues]] = {}
    for item in values.items(label_tags.ROI_CONTOUR_SEQUENCE):
        number = item.integer(label_tags.REFERENCED_ROI_NUMBER)
        if number is not None:
            contours.setdefault(number, []).extend(item.items(label_tags.CONTOUR_SEQUENCE))
    return contours


def _draw(contours: list[ElementValues], value: int, label_map: LabelMap, budget: CrossingBudget) -> int:
    """Draw one structure and return on how many slices; draws nothing of it if it raises Rejected."""
    # A set: by the even-odd rule a contour that is listed twice would erase itself.
    outlines = {outline for contour in contours if (outline := _outline(contour))}
    if not outlines:
        raise Rejected(Reason.LABEL_CONTOURS, "a structure has no closed contour of three points or more")
    by_slice: dict[int, list[Points]] = defaultdict(list)
    for outline in sorted(outlines):
        index = label_map.to_index(_points(outline))
        by_slice[_slice_of(index)].append(index[:, :2])
    if (step := stride(by_slice)) > 1:
        raise Rejected(Reason.LABEL_OFF_SLICE, f"a structure has contours on every {step}th slice only")
    width, height, depth = label_map.shape
    masks = {k: _filled(polygons, (width, height), budget) for k, polygons in by_slice.items() if 0 <= k < depth}
    for k, (box, mask) in masks.items():
        label_map.draw((*box, k), mask, value)
    return len(masks)


def _filled(
    polygons: list[Points], shape: tuple[int, int], budget: CrossingBudget
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """The bounding box of the polygons of one slice, and which of its voxels lie inside an odd number of them."""
    bounds, low, high = _bounds(np.concatenate(polygons), shape)
    mask = np.zeros(high - low, bool)
    for polygon in polygons:
        box, filled = inside(polygon - low, (mask.shape[0], mask.shape[1]), budget)
        mask[box] ^= filled
    return bounds, mask


def _bounds(
    points: Points, shape: tuple[int, int]
) -> tuple[tuple[slice, slice], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The box of the pixels around some points, clipped to the plane; its first corner, and its last, exclusive."""
    low = np.clip(np.floor(points.min(axis=0)), 0, shape).astype(np.intp)
    high = np.clip(np.floor(points.max(axis=0)) + 1, low, shape).astype(np.intp)
    return (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))), low, high


def _outline(contour: ElementValues) -> bytes | None:
    """The coordinates of a contour as written; None if it is not closed or has fewer than three points."""
    if contour.text(label_tags.CONTOUR_GEOMETRIC_TYPE) not in _CLOSED:
        return None
    raw = contour.raw(label_tags.CONTOUR_DATA).strip(b" \0")
    declared = contour.integer(label_tags.NUMBER_OF_CONTOUR_POINTS)
    count = raw.count(b"\\") + 1 if raw else 0
    if count % 3 or (declared is not None and declared * 3 != count):
        raise Rejected(Reason.LABEL_CONTOURS, f"a contour of {declared} points has {count} coordinates")
    return raw if count >= 9 else None


def _points(outline: bytes) -> Points:
    """(n, 3) LPS mm."""
    try:
        points = np.array(outline.split(b"\\"), dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise Rejected(Reason.LABEL_CONTOURS, "a contour holds text instead of a number") from error
    if not np.isfinite(points).all():
        raise Rejected(Reason.LABEL_CONTOURS, "a contour holds a number that is not finite")
    return points


def _slice_of(index: Points) -> int:
    """Index of the slice on which a contour lies, possibly outside the scan. Raises Rejected between slices."""
    if np.abs(index).max() > _MAX_INDEX:
        raise Rejected(Reason.LABEL_CONTOURS, f"a contour lies more than {_MAX_INDEX:.0f} voxels outside the scan")
    k = round(float(index[:, 2].mean()))
    offset = float(np.abs(index[:, 2] - k).max())
    if offset > _MAX_OFF_SLICE:
        raise Rejected(Reason.LABEL_OFF_SLICE, f"a contour lies {offset:.2f} slices away from the nearest slice")
    return k


def inside(
    points: Points, shape: tuple[int, int], budget: CrossingBudget
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """The bounding box of a closed polygon, and which of its pixels have their centre inside, by the even-odd rule.

    A centre on the left or lower edge is inside, one on the right or upper edge is not, so adjacent polygons never
    overlap.

    Args:
        points: (n, 2), finite, in pixels; pixel (i, j) has its centre at (i, j).
        shape: (X, Y) of the plane.
        budget: Limit for the work.
    """
    # A scanline fill. Each crossing of an edge with a line of pixel centres toggles all pixels to its right. An odd
    # number of crossings at one pixel is one toggle, and the running exclusive-or along the line gives the fill.
    box, low, high = _bounds(points, shape)
    width, height = (int(edge) for edge in high - low)
    toggles = np.zeros((height, width + 1), bool)
    for row, column in _crossings(points - low, height, budget):
        right_of = np.ceil(np.clip(column, 0, width)).astype(np.intp)
        times = np.bincount(row * (width + 1) + right_of, minlength=toggles.size)
        toggles ^= times.reshape(toggles.shape) % 2 == 1
    return box, np.logical_xor.accumulate(toggles, axis=1)[:, :width].T


def _crossings(points: Points, height: int, budget: CrossingBudget) -> Iterator[tuple[npt.NDArray[np.intp], Points]]:
    """(line j, position on it) of each crossing of an edge with a line of pixel centres, in batches."""
    ends = np.roll(points, -1, axis=0)
    low, high = np.minimum(points[:, 1], ends[:, 1]), np.maximum(points[:, 1], ends[:, 1])
    first = np.ceil(np.clip(low, 0, height)).astype(np.intp)
    count = np.ceil(np.clip(high, 0, height)).astype(np.intp) - first  # lines with low <= j < high
    budget.spend(int(count.sum()) + len(points))
    batch = np.cumsum(count) // _CROSSINGS_AT_ONCE
    for number in range(int(batch[-1]) + 1):
        edges = np.flatnonzero((batch == number) & (count > 0))
        if not len(edges):
            continue
        edge = np.repeat(edges, count[edges])
        before = np.repeat(np.cumsum(count[edges]) - count[edges], count[edges])
        row = first[edge] + np.arange(len(edge)) - before
        (x0, y0), (x1, y1) = points[edge].T, ends[edge].T
        yield row, x0 + (row - y0) * (x1 - x0) / (y1 - y0)
