"""The header record of a DICOM file, and why a file cannot be part of a scan."""

from medssl.archive.dicom import tags
from medssl.archive.dicom.dataset import Dataset
from medssl.archive.dicom.frames import frames_of
from medssl.archive.dicom.record import Record
from medssl.archive.dicom.uids import (  # fmt: skip
    CLASSIC,
    CODECS,
    COLOR_MR,
    DICOMDIR,
    ENHANCED,
    LABELS,
    LOSSY,
    NO_VOLUME,
    PARAMETRIC_MAP,
    SECONDARY_CAPTURE,
)
from medssl.archive.dicom.values import ElementValues
from medssl.archive.dicom.vocabulary import body_part_word, manufacturer_word, modality_word, model_word
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag, Reason

_WITH_VOLUME = CLASSIC | ENHANCED | {COLOR_MR, ""}
_FACE_CODE = "113102"  # PS3.16 CID 7050: clean recognizable visual features


def record_of(dataset: Dataset, size: int) -> Record:
    """Header record of a DICOM file of `size` bytes.

    A file that cannot be part of a scan gets a record with a `reason`. Raises Rejected if the file does not even name a
    series under which it could be reported.
    """
    header = dataset.values
    if DICOMDIR in (header.text(tags.SOP_CLASS_UID), dataset.meta.text(tags.MEDIA_STORAGE_SOP_CLASS_UID)):
        raise Rejected(Reason.DICOMDIR, "the file is a DICOMDIR")
    if not header.text(tags.SERIES_INSTANCE_UID) and not header.raw(tags.ROWS):
        raise Rejected(Reason.BAD_HEADER, "the file has neither a SeriesInstanceUID nor an image")
    record = _record_without_frames(dataset)
    try:
        _check_object(header, record)
        frames, flags, grid = frames_of(header, record)
        n_bytes = _pixel_bytes(record, size)
        return record._replace(frames=frames, flags=(*record.flags, *flags), grid=grid, pixel_bytes=n_bytes)
    except Rejected as rejected:
        return record._replace(reason=rejected.reason, detail=rejected.detail)


def _record_without_frames(dataset: Dataset) -> Record:
    header = dataset.values
    flags = list(dataset.flags)
    if dataset.syntax in LOSSY or header.text(tags.LOSSY_IMAGE_COMPRESSION) == "01":
        flags.append(Flag.F_LOSSY)
    if header.text(tags.PHOTOMETRIC_INTERPRETATION) == "MONOCHROME1":
        flags.append(Flag.F_MONOCHROME1)
    if header.text(tags.RECOGNIZABLE_VISUAL_FEATURES) == "YES" or any(
        item.text(tags.CODE_VALUE) == _FACE_CODE for item in header.items(tags.DEIDENTIFICATION_METHOD_CODE_SEQUENCE)
    ):
        flags.append(Flag.F_DEFACED)
    return Record(
        patient=header.text(tags.PATIENT_ID),
        issuer=header.text(tags.ISSUER_OF_PATIENT_ID),
        study=header.text(tags.STUDY_INSTANCE_UID),
        series=header.text(tags.SERIES_INSTANCE_UID),
        instance=header.text(tags.SOP_INSTANCE_UID) or dataset.meta.text(tags.MEDIA_STORAGE_SOP_INSTANCE_UID),
        sop_class=header.text(tags.SOP_CLASS_UID) or dataset.meta.text(tags.MEDIA_STORAGE_SOP_CLASS_UID),
        syntax=dataset.syntax,
        modality=modality_word(header.text(tags.MODALITY)),
        rows=header.short(tags.ROWS),
        columns=header.short(tags.COLUMNS),
        n_frames=max(1, header.integer(tags.NUMBER_OF_FRAMES) or 1),
        photometric=header.text(tags.PHOTOMETRIC_INTERPRETATION),
        bits_allocated=header.short(tags.BITS_ALLOCATED),
        bits_stored=header.short(tags.BITS_STORED),
        high_bit=header.short(tags.HIGH_BIT),
        signed=header.short(tags.PIXEL_REPRESENTATION) == 1,
        padding=_padding(header),
        grid=0,
        frame_of_reference=header.text(tags.FRAME_OF_REFERENCE_UID),
        manufacturer=manufacturer_word(header.text(tags.MANUFACTURER)),
        model=model_word(header.text(tags.MANUFACTURER_MODEL_NAME)),
        body_part=body_part_word(header.text(tags.BODY_PART_EXAMINED)),
        lut=bool(header.items(tags.MODALITY_LUT_SEQUENCE)),
        pixel_at=dataset.pixel_at,
        pixel_bytes=0,
        frames=(),
        flags=tuple(flags),
    )


def _check_object(header: ElementValues, record: Record) -> None:
    """Raise Rejected if the object's class or pixel description rules out a scan."""
    sop_class = record.sop_class
    if sop_class in LABELS:
        raise Rejected(Reason.LABEL_OBJECT, "a segmentation or structure set")
    if sop_class in SECONDARY_CAPTURE:
        raise Rejected(Reason.SECONDARY_CAPTURE, "a secondary capture")
    if sop_class in PARAMETRIC_MAP:
        raise Rejected(Reason.PARAMETRIC_MAP, "a parametric map")
    if sop_class in NO_VOLUME:
        raise Rejected(Reason.UNSUPPORTED_MODALITY, f"an object of modality {record.modality}")
    if sop_class not in _WITH_VOLUME or not record.rows or not record.columns:
        raise Rejected(Reason.NOT_IMAGE_SOP, "an object without a volume")
    if header.short(tags.SAMPLES_PER_PIXEL, 1) != 1 or record.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Rejected(Reason.COLOR, f"{header.short(tags.SAMPLES_PER_PIXEL, 1)} samples per pixel")
    if header.text(tags.BURNED_IN_ANNOTATION).upper() == "YES" or any(
        header.raw(tag) for tag in tags.SECONDARY_CAPTURE_DEVICE
    ):
        raise Rejected(Reason.BURNED_IN_RISK, "annotation is declared burned in, or a capture device is named")
    if not sop_class:
        raise Rejected(Reason.NOT_IMAGE_SOP, "no SOP class is named")
    _check_pixel_description(record)


def _check_pixel_description(record: Record) -> None:
    if record.syntax not in CODECS:
        raise Rejected(Reason.UNSUPPORTED_SYNTAX, "its transfer syntax is not among those that are decoded")
    if record.bits_allocated not in (8, 16, 32) or not 1 <= record.bits_stored <= record.bits_allocated:
        raise Rejected(
            Reason.BAD_HEADER, f"{record.bits_stored} bits stored in {record.bits_allocated} allocated are not possible"
        )
    if not record.bits_stored - 1 <= record.high_bit < record.bits_allocated:
        raise Rejected(Reason.BAD_HEADER, f"high bit {record.high_bit} does not fit {record.bits_stored} bits")


def _pixel_bytes(record: Record, size: int) -> int:
    """Bytes of native pixels; 0 if they are compressed. Raises Rejected if the file is too short to hold them."""
    if CODECS[record.syntax] != "native":
        return 0
    expected = record.rows * record.columns * record.n_frames * record.bits_allocated // 8
    available = size - max(record.pixel_at, 0)
    if expected > available:
        raise Rejected(
            Reason.TRUNCATED, f"{expected} bytes of pixels cannot lie in the {available} bytes behind the header"
        )
    return expected


def _padding(header: ElementValues) -> tuple[int, int] | None:
    """(lowest, highest) stored value that means 'no voxel', both inclusive; None if the header names none."""
    if len(header.raw(tags.PIXEL_PADDING_VALUE)) < 2:
        return None
    read = header.signed_short if header.short(tags.PIXEL_REPRESENTATION) == 1 else header.short
    first = read(tags.PIXEL_PADDING_VALUE)
    last = read(tags.PIXEL_PADDING_RANGE_LIMIT) if len(header.raw(tags.PIXEL_PADDING_RANGE_LIMIT)) >= 2 else first
    return min(first, last), max(first, last)
