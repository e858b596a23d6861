"""Closed polygons to the pixels inside them: by the even-odd rule, for the centre of each pixel."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

_CHUNK = 1 << 20


class Effort:
    """Crossings of edges and pixel lines that a label object may still cost: a polygon of few bytes can have many."""

    def __init__(self, crossings: int = 1 << 27) -> None:
        self._left = crossings

    def spend(self, crossings: int) -> None:
        """Raise Rejected with TOO_LARGE when too little is left."""
        self._left -= crossings
        if self._left < 0:
            raise Rejected(Reason.TOO_LARGE, "its contours zigzag beyond all measure")


def inside(
    points: npt.NDArray[np.float64], shape: tuple[int, int], effort: Effort
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """The box of pixels that a closed polygon can reach, and which of them have their centre inside it.

    points: (n, 2), finite, in pixels; pixel (i, j) has its centre at (i, j). shape: (X, Y) of the plane. Even-odd: an
    outline that runs into a hole and back along the same way (keyhole) leaves the hole out. A centre on the left or
    lower edge is inside, one on the right or upper edge is not, so that polygons side by side share none.
    """
    low = np.clip(np.floor(points.min(axis=0)), 0, shape).astype(np.intp)
    high = np.clip(np.floor(points.max(axis=0)) + 1, low, shape).astype(np.intp)
    width, height = (int(edge) for edge in high - low)
    toggles = np.zeros((height, width + 1), bool)
    for row, column in _crossings(points - low, height, effort):
        right_of = np.ceil(np.clip(column, 0, width)).astype(np.intp)
        times = np.bincount(row * (width + 1) + right_of, minlength=toggles.size)
        toggles ^= times.reshape(toggles.shape) % 2 == 1
    box = (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])))
    return box, np.logical_xor.accumulate(toggles, axis=1)[:, :width].T


def _crossings(
    points: npt.NDArray[np.float64], height: int, effort: Effort
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]]:
    """(line j, place on it) of every crossing of an edge with a line of pixel centres, in parts of bounded size."""
    ends = np.roll(points, -1, axis=0)
    low, high = np.minimum(points[:, 1], ends[:, 1]), np.maximum(points[:, 1], ends[:, 1])
    first = np.ceil(np.clip(low, 0, height)).astype(np.intp)
    count = np.ceil(np.clip(high, 0, height)).astype(np.intp) - first  # lines with low <= j < high
    effort.spend(int(count.sum()) + len(points))
    part = np.cumsum(count) // _CHUNK
    for number in range(int(part[-1]) + 1):
        edges = np.flatnonzero((part == number) & (count > 0))
        if not len(edges):
            continue
        edge = np.repeat(edges, count[edges])
        before = np.repeat(np.cumsum(count[edges]) - count[edges], count[edges])
        row = first[edge] + np.arange(len(edge)) - before
        (x0, y0), (x1, y1) = points[edge].T, ends[edge].T
        yield row, x0 + (row - y0) * (x1 - x0) / (y1 - y0)
