"""Frames of a DICOM segmentation to label voxels: binary, fractional and label maps. PS3.3 A.51, C.8.20."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medssl.archive.dicom import label_tags, tags
from medssl.archive.dicom.dataset import Dataset, Wanted
from medssl.archive.dicom.label_record import read_label_object
from medssl.archive.dicom.pixels import PixelFormat, read_frames
from medssl.archive.dicom.uids import CODECS
from medssl.archive.dicom.values import Values
from medssl.archive.labels.label_map import Canvas, stride
from medssl.archive.labels.segment_frames import FramePlane, Placement, paint_frame, placement
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag, Reason

MAX_FRAMES = 200_000
_MAX_FRAME_PIXELS = 1 << 26
_FRAMES_AT_ONCE = 32
_VALUES = frozenset({
    tags.ROWS, tags.COLUMNS, tags.NUMBER_OF_FRAMES, tags.BITS_ALLOCATED, tags.BITS_STORED, tags.HIGH_BIT,
    tags.PIXEL_REPRESENTATION, tags.IMAGE_POSITION_PATIENT, tags.IMAGE_ORIENTATION_PATIENT, tags.PIXEL_SPACING,
    tags.SPACING_BETWEEN_SLICES, tags.SLICE_THICKNESS, label_tags.SEGMENTATION_TYPE,
    label_tags.REFERENCED_SEGMENT_NUMBER, label_tags.MAXIMUM_FRACTIONAL_VALUE,
})  # fmt: skip
_WANTED = Wanted(_VALUES, label_tags.FUNCTIONAL_GROUPS, lambda _: tags.LAST_OF_FRAMES)


@dataclass(frozen=True)
class _Frame:
    number: int
    segment: int
    plane: FramePlane


def draw_segments(path: str, values: Mapping[int, int], canvas: Canvas, *, limits: Limits) -> tuple[Flag, ...]:
    """Draw segments (by number, in the order of `values`) onto the grid of a scan; returns what was noticed.

    A fractional voxel belongs to a segment from one half of the maximum on. Raises Rejected: LABEL_GRID where frames
    lie on another grid, and what reading the file raises.
    """
    dataset = read_label_object(path, _WANTED, limits=limits)
    header = dataset.values
    layout = _layout(dataset, limits)
    kind = header.text(label_tags.SEGMENTATION_TYPE)
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise Rejected(Reason.BAD_HEADER, "a segmentation that is neither binary, fractional nor a label map")
    frames = [frame for frame in _frames(header, layout, kind) if kind == "LABELMAP" or frame.segment in values]
    if not frames:
        raise Rejected(Reason.LABEL_GRID, "none of its segments has a frame")
    places = {frame.number: placement(frame.plane, (layout.rows, layout.columns), canvas) for frame in frames}
    _check_dense(frames, places, canvas)
    rank = {segment: order for order, segment in enumerate(values)}
    frames.sort(key=lambda frame: (rank.get(frame.segment, 0), frame.number))
    drawn = 0
    for frame, stored in _stored(path, layout, frames, dataset.pixel_at, limits):
        for mask, value in _masks(stored, frame, kind, values, header):
            drawn += paint_frame(mask, places[frame.number], value, canvas)
    if not drawn:
        raise Rejected(Reason.LABEL_GRID, "none of its frames lies within the scan")
    return (Flag.F_LABEL_FRACTIONAL,) if kind == "FRACTIONAL" else ()


def _layout(dataset: Dataset, limits: Limits) -> PixelFormat:
    """The pixel format, its sizes believed only within the limits."""
    values = dataset.values
    rows, columns, n_frames = (
        values.short(tags.ROWS),
        values.short(tags.COLUMNS),
        values.integer(tags.NUMBER_OF_FRAMES) or 0,
    )
    bits = values.short(tags.BITS_ALLOCATED)
    if not rows or not columns or bits not in (1, 8, 16) or n_frames < 1:
        raise Rejected(Reason.BAD_HEADER, f"{n_frames} frames of {columns} x {rows} pixels of {bits} bits")
    if n_frames > MAX_FRAMES or rows * columns > _MAX_FRAME_PIXELS:
        raise Rejected(Reason.TOO_LARGE, f"{n_frames} frames of {columns} x {rows} pixels")
    codec = CODECS.get(dataset.syntax)
    if codec is None or (bits == 1 and codec not in ("native", "deflated")):
        raise Rejected(Reason.UNSUPPORTED_SYNTAX, "its transfer syntax is not among those that are decoded")
    layout = PixelFormat(
        dataset.syntax, rows, columns, n_frames, bits, values.short(tags.BITS_STORED) or bits,
        values.short(tags.HIGH_BIT), values.short(tags.PIXEL_REPRESENTATION) == 1,
    )  # fmt: skip
    if layout.big_endian and bits == 1:
        raise Rejected(Reason.UNSUPPORTED_SYNTAX, "single bits in big endian words")
    # Native pixels must lie in the file; compressed ones cost the time to decode them.
    if codec != "native" and rows * columns * n_frames > limits.voxels:
        raise Rejected(Reason.TOO_LARGE, f"{n_frames} compressed frames of {columns} x {rows} pixels")
    if layout.signed or not 1 <= layout.bits_stored <= bits or not layout.bits_stored - 1 <= layout.high_bit < bits:
        raise Rejected(Reason.BAD_HEADER, f"{layout.bits_stored} bits stored in {bits} are not possible here")
    return layout


def _frames(header: Values, layout: PixelFormat, kind: str) -> Iterator[_Frame]:
    """What each frame shows and where it lies, from its own description or the shared one."""
    own, shared = (
        header.items(tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE),
        header.item(tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE),
    )
    if len(own) != layout.n_frames:
        raise Rejected(Reason.BAD_HEADER, f"{len(own)} descriptions for {layout.n_frames} frames")
    for number, item in enumerate(own):

        def group(tag: int, item: Values = item) -> Values:
            return item.item(tag) if item.items(tag) else shared.item(tag)

        measures = group(tags.PIXEL_MEASURES_SEQUENCE)
        position = group(tags.PLANE_POSITION_SEQUENCE).decimals(tags.IMAGE_POSITION_PATIENT)
        orientation = group(tags.PLANE_ORIENTATION_SEQUENCE).decimals(tags.IMAGE_ORIENTATION_PATIENT)
        spacing = measures.decimals(tags.PIXEL_SPACING)
        if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
            raise Rejected(Reason.MULTIFRAME_NO_GEOMETRY, "a frame has no position, orientation or pixel spacing")
        step = measures.decimal(tags.SPACING_BETWEEN_SLICES) or measures.decimal(tags.SLICE_THICKNESS)
        segment = group(label_tags.SEGMENT_IDENTIFICATION_SEQUENCE).short(label_tags.REFERENCED_SEGMENT_NUMBER)
        if not segment and kind != "LABELMAP":
            raise Rejected(Reason.BAD_HEADER, "a frame does not say which segment it shows")
        yield _Frame(number, segment, FramePlane(position, orientation, spacing, step))


def _check_dense(frames: list[_Frame], places: Mapping[int, Placement], canvas: Canvas) -> None:
    """Raise Rejected where slices are skipped because the segmentation has thicker ones, not because they are empty."""
    axis = places[frames[0].number].axes[2]
    apart = stride({place.across for place in places.values()})
    told_mm = frames[0].plane.slice_step_mm
    if apart > 1 and told_mm and told_mm > 1.5 * canvas.step_mm[axis]:
        raise Rejected(Reason.LABEL_GRID, f"its frames lie on every {apart}th slice only")


def _stored(
    path: str, layout: PixelFormat, frames: list[_Frame], pixel_at: int, limits: Limits
) -> Iterator[tuple[_Frame, npt.NDArray[np.generic]]]:
    """Frames with their stored values (rows, columns), a few in memory at a time."""
    if layout.bits_allocated == 1:
        yield from _bits(path, layout, frames, pixel_at, limits)
        return
    most = len(frames) if CODECS[layout.syntax] == "deflated" else _FRAMES_AT_ONCE
    for begin in range(0, len(frames), most):
        some = frames[begin : begin + most]
        read = read_frames(path, layout, [frame.number for frame in some], pixel_at=pixel_at, limits=limits)
        for frame in some:
            yield frame, read[frame.number]


def _bits(
    path: str, layout: PixelFormat, frames: list[_Frame], pixel_at: int, limits: Limits
) -> Iterator[tuple[_Frame, npt.NDArray[np.generic]]]:
    """Frames of single bits, which follow each other without a gap, lowest bit first. PS3.5 8.1.1, annex D."""
    pixels = layout.rows * layout.columns
    n_bytes = -(-pixels * layout.n_frames // 8)
    if n_bytes > limits.scan_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{n_bytes} bytes of single bits")
    as_bytes = PixelFormat(layout.syntax, 1, n_bytes, 1, 8, 8, 7, signed=False)
    packed = read_frames(path, as_bytes, [0], pixel_at=pixel_at, limits=limits)[0].ravel()
    for frame in frames:
        begin = frame.number * pixels
        some = np.unpackbits(packed[begin // 8 : -(-(begin + pixels) // 8)], bitorder="little")
        yield frame, some[begin % 8 : begin % 8 + pixels].reshape(layout.rows, layout.columns)


def _masks(
    stored: npt.NDArray[np.generic], frame: _Frame, kind: str, values: Mapping[int, int], header: Values
) -> Iterator[tuple[npt.NDArray[np.bool_], int]]:
    """(where, label) of a frame: one of its segment, or one for each that a label map shows."""
    if kind == "LABELMAP":
        for segment in np.intersect1d(stored, list(values)):
            yield stored == segment, values[int(segment)]
        return
    if kind == "BINARY":
        yield stored != 0, values[frame.segment]
        return
    most = header.short(label_tags.MAXIMUM_FRACTIONAL_VALUE)
    if not most:
        raise Rejected(Reason.BAD_HEADER, "a fractional segmentation that does not tell its maximum")
    yield stored.astype(np.uint32) * 2 >= most, values[frame.segment]
