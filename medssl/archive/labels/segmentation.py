"""Draws the frames of a DICOM segmentation onto the grid of a scan: binary, fractional and label maps.

PS3.3 A.51 and C.8.20. A frame is drawn only if its pixels coincide with voxels of the scan; nothing is resampled.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medssl.archive.dicom import label_tags, tags
from medssl.archive.dicom.dataset import Dataset, ElementSelection
from medssl.archive.dicom.label_record import read_label_object
from medssl.archive.dicom.pixels import PixelFormat, read_frames
from medssl.archive.dicom.uids import CODECS
from medssl.archive.dicom.values import ElementValues
from medssl.archive.labels.label_map import LabelMap, stride
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag, Reason

MAX_FRAMES = 200_000
_MAX_FRAME_PIXELS = 1 << 26
_FRAMES_AT_ONCE = 32
# How far a corner of a frame may lie from the centre of a voxel, in voxels along X, Y, Z. The limit across slices is
# wider than for NIfTI labels: a scan has evenly spaced slices, but frames repeat the rounded positions (F_JITTER).
_MAX_OFFSET = np.array([0.05, 0.05, 0.25])
_VALUES = frozenset({
    tags.ROWS, tags.COLUMNS, tags.NUMBER_OF_FRAMES, tags.BITS_ALLOCATED, tags.BITS_STORED, tags.HIGH_BIT,
    tags.PIXEL_REPRESENTATION, tags.IMAGE_POSITION_PATIENT, tags.IMAGE_ORIENTATION_PATIENT, tags.PIXEL_SPACING,
    tags.SPACING_BETWEEN_SLICES, tags.SLICE_THICKNESS, label_tags.SEGMENTATION_TYPE,
    label_tags.REFERENCED_SEGMENT_NUMBER, label_tags.MAXIMUM_FRACTIONAL_VALUE,
})  # fmt: skip
_SELECTION = ElementSelection(_VALUES, label_tags.FUNCTIONAL_GROUPS, lambda _: tags.LAST_OF_FRAMES)


@dataclass(frozen=True)
class _FramePlane:
    """The plane of a frame in DICOM's frame of reference (LPS).

    Attributes:
        position_mm: Centre of the first pixel.
        orientation: Direction of a row, then of a column.
        pixel_spacing_mm: Distance between rows, then between columns.
        slice_step_mm: Distance between slices that the object declares, if any.
    """

    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    slice_step_mm: float | None


@dataclass(frozen=True)
class _Placement:
    """A frame on the grid of a scan.

    Attributes:
        axes: Voxel axes along the frame's column index, along its row index, and across the frame.
        start: Voxel index of the first pixel.
        signs: 1 if the column index, then the row index runs along its voxel axis, -1 if against it.
    """

    axes: tuple[int, int, int]
    start: tuple[int, int, int]
    signs: tuple[int, int]

    @property
    def slice_index(self) -> int:
        """Voxel index across the frame, common to all its pixels."""
        return self.start[self.axes[2]]


@dataclass(frozen=True)
class _Frame:
    number: int
    segment: int
    plane: _FramePlane


def draw_segments(path: str, values: Mapping[int, int], label_map: LabelMap, *, limits: Limits) -> tuple[Flag, ...]:
    """Draw segments onto the grid of a scan and return the flags to set.

    Args:
        path: The segmentation.
        values: Segment number to label value, in the order of drawing. Other segments are skipped.
        label_map: Where to draw. A fractional voxel is drawn from one half of the maximum on.
        limits: Limits for header, frames and decoding.

    Raises:
        Rejected: LABEL_GRID if frames lie on another grid, or why the file cannot be read.
    """
    dataset = read_label_object(path, _SELECTION, limits=limits)
    header = dataset.values
    layout = _layout(dataset, limits)
    segmentation_type = header.text(label_tags.SEGMENTATION_TYPE)
    if segmentation_type not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise Rejected(Reason.BAD_HEADER, "SegmentationType is none of BINARY, FRACTIONAL and LABELMAP")
    frames = [
        frame
        for frame in _frames(header, layout, segmentation_type)
        if segmentation_type == "LABELMAP" or frame.segment in values
    ]
    if not frames:
        raise Rejected(Reason.LABEL_GRID, "none of its segments has a frame")
    placements = {frame.number: _placement(frame.plane, (layout.rows, layout.columns), label_map) for frame in frames}
    _check_dense(frames, placements, label_map)
    rank = {segment: order for order, segment in enumerate(values)}
    frames.sort(key=lambda frame: (rank.get(frame.segment, 0), frame.number))
    drawn = 0
    for frame, stored in _stored(path, layout, frames, dataset.pixel_at, limits):
        for mask, value in _masks(stored, frame, segmentation_type, values, header):
            drawn += _draw_frame(mask, placements[frame.number], value, label_map)
    if not drawn:
        raise Rejected(Reason.LABEL_GRID, "none of its frames lies within the scan")
    return (Flag.F_LABEL_FRACTIONAL,) if segmentation_type == "FRACTIONAL" else ()


def _layout(dataset: Dataset, limits: Limits) -> PixelFormat:
    """The pixel format. Raises Rejected if it is invalid or exceeds the limits."""
    header = dataset.values
    rows, columns = header.short(tags.ROWS), header.short(tags.COLUMNS)
    n_frames = header.integer(tags.NUMBER_OF_FRAMES) or 0
    bits = header.short(tags.BITS_ALLOCATED)
    if not rows or not columns or bits not in (1, 8, 16) or n_frames < 1:
        raise Rejected(Reason.BAD_HEADER, f"{n_frames} frames of {columns} x {rows} pixels of {bits} bits")
    if n_frames > MAX_FRAMES or rows * columns > _MAX_FRAME_PIXELS:
        raise Rejected(Reason.TOO_LARGE, f"{n_frames} frames of {columns} x {rows} pixels")
    codec = CODECS.get(dataset.syntax)
    if codec is None or (bits == 1 and codec not in ("native", "deflated")):
        raise Rejected(Reason.UNSUPPORTED_SYNTAX, "no decoder for its transfer syntax")
    layout = PixelFormat(
        dataset.syntax, rows, columns, n_frames, bits, header.short(tags.BITS_STORED) or bits,
        header.short(tags.HIGH_BIT), header.short(tags.PIXEL_REPRESENTATION) == 1,
    )  # fmt: skip
    if layout.big_endian and bits == 1:
        raise Rejected(Reason.UNSUPPORTED_SYNTAX, "pixels of one bit in a big endian transfer syntax")
    # The size of the file bounds native pixels; compressed ones cost time to decode.
    if codec != "native" and rows * columns * n_frames > limits.voxels:
        raise Rejected(Reason.TOO_LARGE, f"{n_frames} compressed frames of {columns} x {rows} pixels")
    if layout.signed:
        raise Rejected(Reason.BAD_HEADER, "the pixels of a segmentation cannot be signed")
    if not 1 <= layout.bits_stored <= bits or not layout.bits_stored - 1 <= layout.high_bit < bits:
        raise Rejected(
            Reason.BAD_HEADER, f"high bit {layout.high_bit} does not fit {layout.bits_stored} of {bits} bits"
        )
    return layout


def _frames(header: ElementValues, layout: PixelFormat, segmentation_type: str) -> Iterator[_Frame]:
    """Segment and plane of each frame, from its per-frame functional groups or the shared ones."""
    per_frame = header.items(tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
    shared = header.item(tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
    if len(per_frame) != layout.n_frames:
        raise Rejected(Reason.BAD_HEADER, f"{len(per_frame)} per-frame descriptions for {layout.n_frames} frames")
    for number, item in enumerate(per_frame):

        def group(tag: int, item: ElementValues = item) -> ElementValues:
            return item.item(tag) if item.items(tag) else shared.item(tag)

        measures = group(tags.PIXEL_MEASURES_SEQUENCE)
        position = group(tags.PLANE_POSITION_SEQUENCE).decimals(tags.IMAGE_POSITION_PATIENT)
        orientation = group(tags.PLANE_ORIENTATION_SEQUENCE).decimals(tags.IMAGE_ORIENTATION_PATIENT)
        spacing = measures.decimals(tags.PIXEL_SPACING)
        if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
            raise Rejected(Reason.MULTIFRAME_NO_GEOMETRY, "a frame has no position, orientation or pixel spacing")
        step = measures.decimal(tags.SPACING_BETWEEN_SLICES) or measures.decimal(tags.SLICE_THICKNESS)
        segment = group(label_tags.SEGMENT_IDENTIFICATION_SEQUENCE).short(label_tags.REFERENCED_SEGMENT_NUMBER)
        if not segment and segmentation_type != "LABELMAP":
            raise Rejected(Reason.BAD_HEADER, "a frame does not name its segment")
        yield _Frame(number, segment, _FramePlane(position, orientation, spacing, step))


def _check_dense(frames: list[_Frame], placements: Mapping[int, _Placement], label_map: LabelMap) -> None:
    """Raise Rejected if the segmentation skips slices because its own are thicker, and not because they are empty."""
    axis = placements[frames[0].number].axes[2]
    step = stride({placement.slice_index for placement in placements.values()})
    declared_mm = frames[0].plane.slice_step_mm
    if step > 1 and declared_mm and declared_mm > 1.5 * label_map.step_mm[axis]:
        raise Rejected(Reason.LABEL_GRID, f"its frames lie on every {step}th slice only")


def _stored(
    path: str, layout: PixelFormat, frames: list[_Frame], pixel_at: int, limits: Limits
) -> Iterator[tuple[_Frame, npt.NDArray[np.generic]]]:
    """Frames with their stored values (rows, columns), a few in memory at a time."""
    if layout.bits_allocated == 1:
        yield from _bits(path, layout, frames, pixel_at, limits)
        return
    # A deflated dataset has to be inflated from its start each time, so its frames are read in one go.
    batch_size = len(frames) if CODECS[layout.syntax] == "deflated" else _FRAMES_AT_ONCE
    for begin in range(0, len(frames), batch_size):
        batch = frames[begin : begin + batch_size]
        pixels = read_frames(path, layout, [frame.number for frame in batch], pixel_at=pixel_at, limits=limits)
        for frame in batch:
            yield frame, pixels[frame.number]


def _bits(
    path: str, layout: PixelFormat, frames: list[_Frame], pixel_at: int, limits: Limits
) -> Iterator[tuple[_Frame, npt.NDArray[np.generic]]]:
    """Frames of one bit per pixel, packed without gaps, lowest bit first. PS3.5 8.1.1, annex D."""
    pixels = layout.rows * layout.columns
    n_bytes = -(-pixels * layout.n_frames // 8)
    if n_bytes > limits.scan_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{n_bytes} bytes of one-bit pixels, above {limits.scan_bytes}")
    as_bytes = PixelFormat(layout.syntax, 1, n_bytes, 1, 8, 8, 7, signed=False)
    packed = read_frames(path, as_bytes, [0], pixel_at=pixel_at, limits=limits)[0].ravel()
    for frame in frames:
        begin = frame.number * pixels
        bits = np.unpackbits(packed[begin // 8 : -(-(begin + pixels) // 8)], bitorder="little")
        yield frame, bits[begin % 8 : begin % 8 + pixels].reshape(layout.rows, layout.columns)


def _masks(
    stored: npt.NDArray[np.generic],
    frame: _Frame,
    segmentation_type: str,
    values: Mapping[int, int],
    header: ElementValues,
) -> Iterator[tuple[npt.NDArray[np.bool_], int]]:
    """(mask, label value) for the segment of a frame, or for each segment that a label map shows."""
    if segmentation_type == "LABELMAP":
        for segment in np.intersect1d(stored, list(values)):
            yield stored == segment, values[int(segment)]
        return
    if segmentation_type == "BINARY":
        yield stored != 0, values[frame.segment]
        return
    maximum = header.short(label_tags.MAXIMUM_FRACTIONAL_VALUE)
    if not maximum:
        raise Rejected(Reason.BAD_HEADER, "the fractional segmentation has no MaximumFractionalValue")
    yield stored.astype(np.uint32) * 2 >= maximum, values[frame.segment]


def _placement(plane: _FramePlane, shape: tuple[int, int], label_map: LabelMap) -> _Placement:
    """Where a frame of (rows, columns) lies. Raises Rejected with LABEL_GRID if its pixels are not voxels."""
    # Only the four corners are checked: the map from pixels to voxels is affine, so the largest offset is at a corner.
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    origin = np.array(plane.position_mm)
    down_mm, right_mm = plane.pixel_spacing_mm
    first = label_map.to_index(origin)
    right = label_map.to_index(origin + row * right_mm) - first
    down = label_map.to_index(origin + column * down_mm) - first
    axes = int(np.abs(right).argmax()), int(np.abs(down).argmax())
    if axes[0] == axes[1] or not np.isfinite([first, right, down]).all() or np.abs(first).max() > 1e6:
        raise Rejected(Reason.LABEL_GRID, "a frame is not parallel to a plane of the scan")
    signs = (1 if right[axes[0]] > 0 else -1, 1 if down[axes[1]] > 0 else -1)
    start = np.rint(first)
    rows, columns = shape
    max_offset = 0.0
    for i, j in ((0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)):
        voxel = start.copy()
        voxel[axes[0]] += signs[0] * j
        voxel[axes[1]] += signs[1] * i
        max_offset = max(max_offset, float((np.abs(first + i * down + j * right - voxel) / _MAX_OFFSET).max()))
    if max_offset > 1:
        raise Rejected(
            Reason.LABEL_GRID, f"a corner of a frame is {max_offset:.3g} times farther off the grid than allowed"
        )
    x, y, z = (int(value) for value in start)
    return _Placement((*axes, 3 - axes[0] - axes[1]), (x, y, z), signs)


def _draw_frame(mask: npt.NDArray[np.bool_], placement: _Placement, value: int, label_map: LabelMap) -> bool:
    """Draw the part of a frame (rows, columns) that lies within the scan; returns whether any of it does."""
    if not 0 <= placement.slice_index < label_map.shape[placement.axes[2]]:
        return False
    region: list[slice | int] = [placement.slice_index] * 3
    # Crop along the frame's axis 1 (columns) first, then along its axis 0 (rows).
    for side, (axis, sign) in enumerate(zip(placement.axes[:2], placement.signs, strict=True)):
        frame_axis = 1 - side
        begin, size = placement.start[axis], label_map.shape[axis]
        count = mask.shape[frame_axis]
        first, last = (begin, begin + count - 1) if sign > 0 else (begin - count + 1, begin)
        low, high = max(first, 0), min(last, size - 1)
        if low > high:
            return False
        if sign < 0:
            mask = np.flip(mask, frame_axis)
        inside = slice(low - first, high - first + 1)
        mask = mask[:, inside] if frame_axis else mask[inside]
        region[axis] = slice(low, high + 1)
    label_map.draw(tuple(region), mask if placement.axes[1] < placement.axes[0] else mask.T, value)
    return True
