"""The slices of a DICOM file: one in a classic file, many in an enhanced object, a mosaic or a grid."""

import math

from medssl.archive.dicom import tags
from medssl.archive.dicom.mosaic import mosaic_frames, uih_frames
from medssl.archive.dicom.record import Frame, Record, Vector
from medssl.archive.dicom.uids import ENHANCED
from medssl.archive.dicom.values import ElementValues
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag, Reason

MAX_FRAMES = 100_000


def frames_of(header: ElementValues, record: Record) -> tuple[tuple[Frame, ...], tuple[Flag, ...], int]:
    """(frames, flags, tiles per row of a mosaic or grid, else 0). Raises Rejected if a frame's numbers are invalid."""
    if record.sop_class in ENHANCED:
        return _enhanced(header, record), (), 0
    if record.n_frames > 1:
        raise Rejected(Reason.MULTIFRAME_NO_GEOMETRY, f"{record.n_frames} frames without a position each")
    frame = _classic(header)
    if record.manufacturer == "uih" and header.raw(tags.UIH_NUMBER_OF_TILES):
        frames, grid = uih_frames(header, record, frame)
        return frames, (Flag.F_UIH_GRID,), grid
    if "MOSAIC" in frame.image_type and record.manufacturer == "siemens":
        frames, grid = mosaic_frames(header, record, frame)
        return frames, (Flag.F_MOSAIC,), grid
    return (frame,), (), 0


def _classic(header: ElementValues) -> Frame:
    slope, intercept = _rescale(header)
    return Frame(
        number=0,
        position_mm=vector(header, tags.IMAGE_POSITION_PATIENT),
        orientation=_orientation(header),
        pixel_spacing_mm=_spacing(header),
        slope=slope,
        intercept=intercept,
        image_type=(*header.words(tags.IMAGE_TYPE), *_ge_image_type(header)),
        echo_ms=header.decimal(tags.ECHO_TIME),
        echo_number=header.integer(tags.ECHO_NUMBERS),
        repetition_ms=header.decimal(tags.REPETITION_TIME),
        inversion_ms=header.decimal(tags.INVERSION_TIME),
        flip_deg=header.decimal(tags.FLIP_ANGLE),
        kernel=header.text(tags.CONVOLUTION_KERNEL),
        coil=header.text(tags.RECEIVE_COIL_NAME),
        acquisition=header.integer(tags.ACQUISITION_NUMBER),
        instance=header.integer(tags.INSTANCE_NUMBER),
        temporal=header.integer(tags.TEMPORAL_POSITION_IDENTIFIER),
        b_value=_b_value(header),
        gradient=header.doubles(tags.DIFFUSION_GRADIENT_ORIENTATION) or None,
        trigger_ms=header.decimal(tags.TRIGGER_TIME) or header.decimal(tags.FRAME_REFERENCE_TIME),
        time=header.text(tags.CONTENT_TIME) or header.text(tags.ACQUISITION_TIME),
        thickness_mm=header.decimal(tags.SPACING_BETWEEN_SLICES) or header.decimal(tags.SLICE_THICKNESS),
    )


def _enhanced(header: ElementValues, record: Record) -> tuple[Frame, ...]:
    """Frames of an enhanced object: per-frame functional groups override the shared ones (PS3.3 C.7.6.16)."""
    per_frame = header.items(tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
    if record.n_frames > MAX_FRAMES:
        raise Rejected(Reason.TOO_LARGE, f"{record.n_frames} frames in one file")
    if len(per_frame) != record.n_frames:
        raise Rejected(
            Reason.MULTIFRAME_NO_GEOMETRY, f"{len(per_frame)} per-frame descriptions for {record.n_frames} frames"
        )
    shared = header.item(tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
    shared_groups = {tag: shared.item(tag) for tag in _GROUPS}
    return tuple(_enhanced_frame(number, frame, shared_groups, header) for number, frame in enumerate(per_frame))


_GROUPS = (
    tags.PLANE_POSITION_SEQUENCE, tags.PLANE_ORIENTATION_SEQUENCE, tags.PIXEL_MEASURES_SEQUENCE,
    tags.PIXEL_VALUE_TRANSFORMATION_SEQUENCE, tags.FRAME_CONTENT_SEQUENCE, tags.TEMPORAL_POSITION_SEQUENCE,
    tags.MR_IMAGE_FRAME_TYPE_SEQUENCE, tags.CT_IMAGE_FRAME_TYPE_SEQUENCE, tags.PET_FRAME_TYPE_SEQUENCE,
    tags.MR_ECHO_SEQUENCE, tags.MR_DIFFUSION_SEQUENCE, tags.MR_TIMING_AND_RELATED_PARAMETERS_SEQUENCE,
    tags.MR_RECEIVE_COIL_SEQUENCE, tags.MR_MODIFIER_SEQUENCE, tags.CT_RECONSTRUCTION_SEQUENCE,
    tags.CARDIAC_SYNCHRONIZATION_SEQUENCE,
)  # fmt: skip


def _enhanced_frame(
    number: int, frame: ElementValues, shared: dict[int, ElementValues], header: ElementValues
) -> Frame:
    def group(tag: int) -> ElementValues:
        items = frame.items(tag)
        return items[0] if items else shared[tag]

    content, diffusion = group(tags.FRAME_CONTENT_SEQUENCE), group(tags.MR_DIFFUSION_SEQUENCE)
    measures, timing = group(tags.PIXEL_MEASURES_SEQUENCE), group(tags.MR_TIMING_AND_RELATED_PARAMETERS_SEQUENCE)
    cardiac = group(tags.CARDIAC_SYNCHRONIZATION_SEQUENCE)
    frame_types = (group(tag).words(tags.FRAME_TYPE) for tag in _FRAME_TYPES)
    slope, intercept = _rescale(group(tags.PIXEL_VALUE_TRANSFORMATION_SEQUENCE))
    directions = diffusion.item(tags.DIFFUSION_GRADIENT_DIRECTION_SEQUENCE)
    return Frame(
        number=number,
        position_mm=vector(group(tags.PLANE_POSITION_SEQUENCE), tags.IMAGE_POSITION_PATIENT),
        orientation=_orientation(group(tags.PLANE_ORIENTATION_SEQUENCE)),
        pixel_spacing_mm=_spacing(measures),
        slope=slope,
        intercept=intercept,
        image_type=next(filter(None, frame_types), header.words(tags.IMAGE_TYPE)),
        echo_ms=_first(group(tags.MR_ECHO_SEQUENCE).doubles(tags.EFFECTIVE_ECHO_TIME)),
        repetition_ms=timing.decimal(tags.REPETITION_TIME),
        inversion_ms=_first(group(tags.MR_MODIFIER_SEQUENCE).doubles(tags.INVERSION_TIMES)),
        flip_deg=timing.decimal(tags.FLIP_ANGLE),
        kernel=group(tags.CT_RECONSTRUCTION_SEQUENCE).text(tags.CONVOLUTION_KERNEL),
        coil=group(tags.MR_RECEIVE_COIL_SEQUENCE).text(tags.RECEIVE_COIL_NAME),
        acquisition=content.short(tags.FRAME_ACQUISITION_NUMBER) or None,
        instance=(header.integer(tags.INSTANCE_NUMBER) or 0) * MAX_FRAMES + number,
        temporal=content.long(tags.TEMPORAL_POSITION_INDEX),
        b_value=_first(diffusion.doubles(tags.DIFFUSION_B_VALUE)),
        gradient=directions.doubles(tags.DIFFUSION_GRADIENT_ORIENTATION) or None,
        trigger_ms=_first(cardiac.doubles(tags.NOMINAL_CARDIAC_TRIGGER_DELAY_TIME)),
        time=content.text(tags.FRAME_ACQUISITION_DATE_TIME) or header.text(tags.CONTENT_TIME),
        thickness_mm=measures.decimal(tags.SPACING_BETWEEN_SLICES) or measures.decimal(tags.SLICE_THICKNESS),
    )


_FRAME_TYPES = (tags.MR_IMAGE_FRAME_TYPE_SEQUENCE, tags.CT_IMAGE_FRAME_TYPE_SEQUENCE, tags.PET_FRAME_TYPE_SEQUENCE)


def vector(header: ElementValues, tag: int) -> Vector | None:
    """Three numbers; None if they are absent. Raises Rejected with BAD_NUMBER."""
    numbers = header.decimals(tag)
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _orientation(header: ElementValues) -> tuple[float, ...] | None:
    numbers = header.decimals(tags.IMAGE_ORIENTATION_PATIENT)
    return numbers if len(numbers) == 6 else None


def _spacing(header: ElementValues) -> tuple[float, float] | None:
    numbers = header.decimals(tags.PIXEL_SPACING)
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def _rescale(header: ElementValues) -> tuple[float, float]:
    """(slope, intercept), (1, 0) by default. Raises Rejected for a slope of 0, which would erase the image."""
    slope, intercept = header.decimals(tags.RESCALE_SLOPE), header.decimals(tags.RESCALE_INTERCEPT)
    if slope and slope[0] == 0:
        raise Rejected(Reason.BAD_NUMBER, "the rescale slope is 0")
    return (slope[0] if slope else 1.0), (intercept[0] if intercept else 0.0)


def _b_value(header: ElementValues) -> float | None:
    """Diffusion b-value: the standard element, else the private one of UIH (FD), Siemens (IS) or GE (IS)."""
    for tag in (tags.DIFFUSION_B_VALUE, tags.UIH_B_VALUE):
        b_value = _first(header.doubles(tag))
        if b_value is not None:
            return b_value
    if _is_ge(header):
        # The first of four numbers; GE adds 1e9 to those of multi-shell protocols (dcm2niix, GE/README).
        b_value = header.decimal(tags.GE_B_VALUE)
        return None if b_value is None else b_value % 100_000
    return header.decimal(tags.SIEMENS_B_VALUE)


def _ge_image_type(header: ElementValues) -> tuple[str, ...]:
    """The ImageType word for a GE slice that does not show the magnitude; empty for all other slices.

    GE writes the part of the signal only in a private element (0: magnitude, 1: phase, 2: real, 3: imaginary).
    """
    word = _GE_IMAGE_TYPES.get(header.short(tags.GE_IMAGE_TYPE)) if _is_ge(header) else None
    return (word,) if word else ()


_GE_IMAGE_TYPES = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}


def _is_ge(header: ElementValues) -> bool:
    return header.text(tags.GE_CREATOR) == "GEMS_PARM_01"


def _first(numbers: tuple[float, ...]) -> float | None:
    return numbers[0] if numbers and math.isfinite(numbers[0]) else None
