"""Label records: which images a segmentation or structure set labels, and what its structures are called.

Names and codes stay in the private index; `labels/names.py` decides what leaves it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pydantic import ConfigDict, TypeAdapter

from medssl.archive.dicom import label_tags, tags
from medssl.archive.dicom.dataset import Dataset, ElementSelection, read_dataset, read_dataset_file
from medssl.archive.dicom.record import Record
from medssl.archive.dicom.uids import RT_STRUCTURE
from medssl.archive.dicom.values import ElementValues
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

MAX_STRUCTURES, MAX_INSTANCES = 10_000, 100_000


class Structure(NamedTuple):
    """A segment or region of interest.

    Attributes:
        number: SegmentNumber or ROINumber.
        name: SegmentLabel or ROIName.
        codes: 'SCHEME:VALUE' of the property type, then of its modifiers (left, right).
        frame_of_reference: UID that a structure set names for the structure, else ''.
    """

    number: int
    name: str
    codes: tuple[str, ...] = ()
    frame_of_reference: str = ""


class LabelRecord(NamedTuple):
    """One label object.

    Attributes:
        record: Its header record.
        created: When it was made, as YYYYMMDDhhmmss...; '' if the header does not say.
        series: UIDs of the series it refers to.
        instances: UIDs of the images it refers to.
        structures: Its segments or regions of interest.
    """

    record: Record
    created: str
    series: tuple[str, ...]
    instances: tuple[str, ...]
    structures: tuple[Structure, ...]

    @property
    def is_structure_set(self) -> bool:
        """Whether it holds contours instead of frames."""
        return self.record.sop_class == RT_STRUCTURE


_ADAPTER = TypeAdapter(LabelRecord, config=ConfigDict(ser_json_inf_nan="constants"))


def label_record_json(label: LabelRecord) -> str:
    """The label record as the index stores it."""
    return _ADAPTER.dump_json(label).decode()


def parse_label_record(text: str) -> LabelRecord:
    """The label record that `label_record_json` wrote."""
    return _ADAPTER.validate_json(text)


def read_label_record(
    read: Callable[[int], bytes], start: bytes, size: int, *, record: Record, limits: Limits
) -> LabelRecord:
    """The label record of a file.

    Args:
        read: `read(n)` returns the first n bytes of the file.
        start: First bytes of the file, already read.
        size: Bytes of the file.
        record: Header record of the file.
        limits: How much of the file may be read.

    Raises:
        Rejected: The header cannot be read, has no instance UID, or lists too much.
    """
    header = read_dataset(read, start, size, _label_limits(limits), _SELECTION).values
    if not record.instance:
        raise Rejected(Reason.BAD_HEADER, "the label object has no SOPInstanceUID")
    structures = tuple(_rois(header) if record.sop_class == RT_STRUCTURE else _segments(header))
    instances = tuple(sorted(set(_instances(header))))
    if len(structures) > MAX_STRUCTURES or len(instances) > MAX_INSTANCES:
        raise Rejected(Reason.TOO_LARGE, f"{len(structures)} structures on {len(instances)} images in one label object")
    series = tuple(sorted({uid for item in _series(header) if (uid := item.text(tags.SERIES_INSTANCE_UID))}))
    return LabelRecord(record, _created(header), series, instances, structures)


def read_label_object(path: str, selection: ElementSelection, *, limits: Limits) -> Dataset:
    """Selected elements of a label object on disk. Raises Rejected."""
    try:
        return read_dataset_file(path, _label_limits(limits), selection)
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"the file cannot be read ({error.strerror})") from error


def _label_limits(limits: Limits) -> Limits:
    """The limits with the header bytes of a multi-frame file: label objects list many images and structures."""
    return limits.model_copy(update={"header_bytes": limits.frames_header_bytes})


def _last_tag(header: ElementValues) -> int:
    """The last tag to read. Frames are read only if the object does not list the images it was drawn on."""
    if header.text(tags.SOP_CLASS_UID) == RT_STRUCTURE:
        return label_tags.LAST_BEFORE_CONTOURS
    listed = header.items(label_tags.REFERENCED_SERIES_SEQUENCE) or header.items(
        label_tags.STUDIES_CONTAINING_OTHER_REFERENCED_INSTANCES_SEQUENCE
    )
    return label_tags.LAST_OF_SEGMENTS if listed else tags.LAST_OF_FRAMES


_VALUES = frozenset({
    tags.SOP_CLASS_UID, tags.SERIES_INSTANCE_UID, tags.CONTENT_TIME, tags.CODE_VALUE, label_tags.INSTANCE_CREATION_DATE,
    label_tags.INSTANCE_CREATION_TIME, label_tags.CONTENT_DATE, label_tags.REFERENCED_SOP_INSTANCE_UID,
    label_tags.CODING_SCHEME_DESIGNATOR, label_tags.SEGMENT_NUMBER, label_tags.SEGMENT_LABEL,
    label_tags.STRUCTURE_SET_DATE, label_tags.STRUCTURE_SET_TIME, label_tags.ROI_NUMBER,
    label_tags.REFERENCED_FRAME_OF_REFERENCE_UID, label_tags.ROI_NAME,
})  # fmt: skip
_SEQUENCES = (
    label_tags.REFERENCES
    | label_tags.STRUCTURES
    | {tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE, tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE}
)
_SELECTION = ElementSelection(_VALUES, _SEQUENCES, _last_tag)
_INSTANCE_SEQUENCES = (
    label_tags.REFERENCED_INSTANCE_SEQUENCE, label_tags.REFERENCED_SOP_SEQUENCE, label_tags.CONTOUR_IMAGE_SEQUENCE,
)  # fmt: skip


def _series(header: ElementValues) -> Iterator[ElementValues]:
    """Items of the referenced series: of this study, of other studies, of a structure set."""
    yield from header.items(label_tags.REFERENCED_SERIES_SEQUENCE)
    for study in header.items(label_tags.STUDIES_CONTAINING_OTHER_REFERENCED_INSTANCES_SEQUENCE):
        yield from study.items(label_tags.REFERENCED_SERIES_SEQUENCE)
    for frame in header.items(label_tags.REFERENCED_FRAME_OF_REFERENCE_SEQUENCE):
        for study in frame.items(label_tags.RT_REFERENCED_STUDY_SEQUENCE):
            yield from study.items(label_tags.RT_REFERENCED_SERIES_SEQUENCE)


def _instances(header: ElementValues) -> Iterator[str]:
    """SOPInstanceUIDs of the referenced images, listed by series or by frame."""
    lists = [item.items(sequence) for item in _series(header) for sequence in _INSTANCE_SEQUENCES]
    shared = header.item(tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
    for frame in (shared, *header.items(tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)):
        for derived in frame.items(label_tags.DERIVATION_IMAGE_SEQUENCE):
            lists.append(derived.items(label_tags.SOURCE_IMAGE_SEQUENCE))
    return (uid for items in lists for item in items if (uid := item.text(label_tags.REFERENCED_SOP_INSTANCE_UID)))


def _segments(header: ElementValues) -> Iterator[Structure]:
    for item in header.items(label_tags.SEGMENT_SEQUENCE):
        property_type = item.item(label_tags.SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE)
        modifiers = label_tags.SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE
        codes = map(_code, (property_type, *property_type.items(modifiers), *item.items(modifiers)))
        number = item.short(label_tags.SEGMENT_NUMBER)
        if number:  # 0 is the background of a label map
            yield Structure(number, _name(item, label_tags.SEGMENT_LABEL), tuple(filter(None, codes)))


def _rois(header: ElementValues) -> Iterator[Structure]:
    for item in header.items(label_tags.STRUCTURE_SET_ROI_SEQUENCE):
        number = item.integer(label_tags.ROI_NUMBER)
        if number is not None:
            yield Structure(
                number, _name(item, label_tags.ROI_NAME), (), item.text(label_tags.REFERENCED_FRAME_OF_REFERENCE_UID)
            )


def _code(item: ElementValues) -> str:
    value, scheme = item.text(tags.CODE_VALUE), item.text(label_tags.CODING_SCHEME_DESIGNATOR)
    return f"{scheme}:{value}".upper() if value and scheme else ""


def _name(item: ElementValues, tag: int) -> str:
    """Text decoded as UTF-8 if valid, else as Latin-1: a name only has to decode alike each time."""
    raw = item.raw(tag).strip(b" \0")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _created(header: ElementValues) -> str:
    """When the object was made, as digits that sort by time."""
    for date, time in (
        (label_tags.STRUCTURE_SET_DATE, label_tags.STRUCTURE_SET_TIME),
        (label_tags.CONTENT_DATE, tags.CONTENT_TIME),
        (label_tags.INSTANCE_CREATION_DATE, label_tags.INSTANCE_CREATION_TIME),
    ):
        if day := header.text(date):
            return day.replace(".", "") + header.text(time).replace(":", "")
    return ""
