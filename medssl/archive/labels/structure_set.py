"""Contours of a structure set (RTSTRUCT) to the voxels inside them. PS3.3 C.8.8.6.

Contours lie on the slices of their images. They are taken into voxel indices by the scan's own affine, shear included,
and filled there: even-odd over all contours of one structure on one slice, so that a contour within a contour is a
hole, and a keyhole outline leaves its hole out. Nothing is drawn between slices.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from medssl.archive.dicom import label_tags
from medssl.archive.dicom.dataset import Wanted
from medssl.archive.dicom.label_record import read_label_object
from medssl.archive.dicom.values import Values
from medssl.archive.labels.label_map import Canvas, stride
from medssl.archive.labels.polygons import Effort, inside
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

# Positions of contours and slices are rounded apart from each other; half a slice would be between two.
_OFF_SLICE = 0.25
_CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_FARTHEST_VOXELS = 1e6
_VALUES = frozenset({
    label_tags.CONTOUR_GEOMETRIC_TYPE, label_tags.NUMBER_OF_CONTOUR_POINTS, label_tags.CONTOUR_DATA,
    label_tags.REFERENCED_ROI_NUMBER,
})  # fmt: skip
_SEQUENCES = frozenset({label_tags.ROI_CONTOUR_SEQUENCE, label_tags.CONTOUR_SEQUENCE})
_WANTED = Wanted(_VALUES, _SEQUENCES, lambda _: label_tags.LAST_OF_CONTOURS)
Points = npt.NDArray[np.float64]


def draw_structures(path: str, values: Mapping[int, int], canvas: Canvas, *, limits: Limits) -> Rejected | None:
    """Draw structures (by number, in the order of `values`) and say why the first of those that cannot be is left out.

    Raises Rejected where none can be drawn: LABEL_CONTOURS, LABEL_OFF_SLICE, and what reading the file raises.
    """
    contours = _contours(path, limits)
    effort = Effort()
    drawn, problem = 0, None
    for number, value in values.items():
        try:
            drawn += _draw(contours.get(number, []), value, canvas, effort)
        except Rejected as rejected:
            if rejected.reason not in (Reason.LABEL_CONTOURS, Reason.LABEL_OFF_SLICE):
                raise
            problem = problem or rejected
    if not drawn:
        raise problem or Rejected(Reason.LABEL_OFF_SLICE, "no contour lies on a slice of the scan")
    return problem


def _contours(path: str, limits: Limits) -> dict[int, list[Values]]:
    """Contours by the number of their structure. Raises Rejected."""
    values = read_label_object(path, _WANTED, limits=limits).values
    found: dict[int, list[Values]] = {}
    for item in values.items(label_tags.ROI_CONTOUR_SEQUENCE):
        number = item.integer(label_tags.REFERENCED_ROI_NUMBER)
        if number is not None:
            found.setdefault(number, []).extend(item.items(label_tags.CONTOUR_SEQUENCE))
    return found


def _draw(contours: list[Values], value: int, canvas: Canvas, effort: Effort) -> int:
    """Draw one structure; returns on how many slices. Raises Rejected, having drawn nothing of it."""
    outlines = {outline for one in contours if (outline := _outline(one))}  # twice the same would undo itself
    if not outlines:
        raise Rejected(Reason.LABEL_CONTOURS, "a structure has no closed contour of three points or more")
    by_slice: dict[int, list[Points]] = defaultdict(list)
    for outline in sorted(outlines):
        index = canvas.to_index(_points(outline))
        by_slice[_slice_of(index)].append(index[:, :2])
    if (apart := stride(by_slice)) > 1:
        raise Rejected(Reason.LABEL_OFF_SLICE, f"a structure has contours on every {apart}th slice only")
    here = {place: parts for place, parts in by_slice.items() if 0 <= place < canvas.shape[2]}
    masks = {place: _filled(parts, canvas.shape[:2], effort) for place, parts in here.items()}
    for place, (box, mask) in masks.items():
        canvas.paint((*box, place), mask, value)
    return len(masks)


def _filled(
    parts: list[Points], shape: tuple[int, int], effort: Effort
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """The box of voxels that the contours of one slice can reach, and which of them are inside an odd number."""
    low = np.clip(np.floor(np.min([part.min(axis=0) for part in parts], axis=0)), 0, shape).astype(int)
    high = np.clip(np.floor(np.max([part.max(axis=0) for part in parts], axis=0)) + 1, low, shape).astype(int)
    mask = np.zeros(high - low, bool)
    for part in parts:
        box, filled = inside(part - low, (mask.shape[0], mask.shape[1]), effort)
        mask[box] ^= filled
    return (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))), mask


def _outline(contour: Values) -> bytes | None:
    """The numbers of a contour as they are written; None where it encloses nothing.

    A point, a line, and a closed contour of one or two points enclose nothing.
    """
    if contour.text(label_tags.CONTOUR_GEOMETRIC_TYPE) not in _CLOSED:
        return None
    raw = contour.raw(label_tags.CONTOUR_DATA).strip(b" \0")
    told, count = contour.integer(label_tags.NUMBER_OF_CONTOUR_POINTS), raw.count(b"\\") + 1 if raw else 0
    if count % 3 or (told is not None and told * 3 != count):
        raise Rejected(Reason.LABEL_CONTOURS, f"a contour of {told} points has {count} coordinates")
    return raw if count >= 9 else None


def _points(outline: bytes) -> Points:
    """(n, 3) LPS mm."""
    try:
        points = np.array(outline.split(b"\\"), dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise Rejected(Reason.LABEL_CONTOURS, "a contour holds text where a number must be") from error
    if not np.isfinite(points).all():
        raise Rejected(Reason.LABEL_CONTOURS, "a contour holds a number that is not finite")
    return points


def _slice_of(index: Points) -> int:
    """The slice on which a contour lies, which need not be one of the scan. Raises Rejected where it lies on none."""
    if np.abs(index).max() > _FARTHEST_VOXELS:
        raise Rejected(Reason.LABEL_CONTOURS, "a contour lies farther away than any patient reaches")
    place = round(float(index[:, 2].mean()))
    off = float(np.abs(index[:, 2] - place).max())
    if off > _OFF_SLICE:
        raise Rejected(Reason.LABEL_OFF_SLICE, f"a contour lies {off:.2f} slices away from the nearest slice")
    return place
