"""What the header of a segmentation or structure set says: which images it labels, and what its structures are called.

Names and codes stay in the private index; `label_names.py` decides what leaves it.
"""

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from medssl.archive.dicom import label_tags, tags
from medssl.archive.dicom.dataset import FIRST_BYTES, Dataset, Wanted, read_dataset
from medssl.archive.dicom.record import Record, parse_record, record_json
from medssl.archive.dicom.uids import RT_STRUCTURE
from medssl.archive.dicom.values import Values
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

MAX_STRUCTURES, MAX_INSTANCES = 10_000, 100_000


class Structure(NamedTuple):
    """A segment or region of interest. codes: 'SCHEME:VALUE' of what it is, then of what narrows it down (left, right).

    frame_of_reference: its own, where a structure set names one.
    """

    number: int
    name: str
    codes: tuple[str, ...] = ()
    frame_of_reference: str = ""


class LabelRecord(NamedTuple):
    """One label object. created: YYYYMMDDhhmmss..., '' where it is not told. series, instances: UIDs it refers to."""

    record: Record
    created: str
    series: tuple[str, ...]
    instances: tuple[str, ...]
    structures: tuple[Structure, ...]

    @property
    def is_structure_set(self) -> bool:
        """Whether it holds contours; else it holds frames."""
        return self.record.sop_class == RT_STRUCTURE


def label_record_json(label: LabelRecord) -> str:
    """As it lies in the index."""
    return json.dumps([record_json(label.record), *label[1:]], separators=(",", ":"))


def parse_label_record(text: str) -> LabelRecord:
    """The label record that `label_record_json` wrote."""
    record, created, series, instances, structures = json.loads(text)
    found = tuple(Structure(number, name, tuple(codes), frame) for number, name, codes, frame in structures)
    return LabelRecord(parse_record(record), created, tuple(series), tuple(instances), found)


def read_label_record(
    read: Callable[[int], bytes], start: bytes, size: int, *, record: Record, limits: Limits
) -> LabelRecord:
    """The label record of a file of which `record` is the header record; `read`, `start`, `size` as for `read_dataset`.

    Raises Rejected.
    """
    roomy = limits.model_copy(update={"header_bytes": limits.frames_header_bytes})
    values = read_dataset(read, start, size, roomy, _WANTED).values
    if not record.instance:
        raise Rejected(Reason.BAD_HEADER, "a label object without an instance UID")
    structures = tuple(_rois(values) if record.sop_class == RT_STRUCTURE else _segments(values))
    instances = tuple(sorted(set(_instances(values))))
    if len(structures) > MAX_STRUCTURES or len(instances) > MAX_INSTANCES:
        raise Rejected(Reason.TOO_LARGE, f"{len(structures)} structures on {len(instances)} images in one label object")
    series = tuple(sorted({uid for item in _series(values) if (uid := item.text(tags.SERIES_INSTANCE_UID))}))
    return LabelRecord(record, _created(values), series, instances, structures)


def read_label_object(path: str, wanted: Wanted, *, limits: Limits) -> Dataset:
    """Wanted elements of a label object on disk. Raises Rejected."""
    roomy = limits.model_copy(update={"header_bytes": limits.frames_header_bytes})
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)

            def read(count: int) -> bytes:
                file.seek(0)
                return file.read(count)

            return read_dataset(read, read(FIRST_BYTES), size, roomy, wanted)
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"it cannot be read ({error.strerror})") from error


def _last(values: Values) -> int:
    """Frames are walked only where the object does not list the images it was made on."""
    if values.text(tags.SOP_CLASS_UID) == RT_STRUCTURE:
        return label_tags.LAST_BEFORE_CONTOURS
    listed = values.items(label_tags.REFERENCED_SERIES_SEQUENCE) or values.items(
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
_WANTED = Wanted(_VALUES, _SEQUENCES, _last)


def _series(values: Values) -> Iterator[Values]:
    """Items that stand for a referenced series: of this study, of others, of a structure set."""
    yield from values.items(label_tags.REFERENCED_SERIES_SEQUENCE)
    for study in values.items(label_tags.STUDIES_CONTAINING_OTHER_REFERENCED_INSTANCES_SEQUENCE):
        yield from study.items(label_tags.REFERENCED_SERIES_SEQUENCE)
    for frame in values.items(label_tags.REFERENCED_FRAME_OF_REFERENCE_SEQUENCE):
        for study in frame.items(label_tags.RT_REFERENCED_STUDY_SEQUENCE):
            yield from study.items(label_tags.RT_REFERENCED_SERIES_SEQUENCE)


def _instances(values: Values) -> Iterator[str]:
    """SOP Instance UIDs of the images, listed by series or, where no series is named, frame by frame."""
    lists = [
        items
        for item in _series(values)
        for items in (
            item.items(label_tags.REFERENCED_INSTANCE_SEQUENCE),
            item.items(label_tags.REFERENCED_SOP_SEQUENCE),
            item.items(label_tags.CONTOUR_IMAGE_SEQUENCE),
        )
    ]
    for frame in (
        values.item(tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE),
        *values.items(tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE),
    ):
        lists += [
            derived.items(label_tags.SOURCE_IMAGE_SEQUENCE)
            for derived in frame.items(label_tags.DERIVATION_IMAGE_SEQUENCE)
        ]
    return (uid for items in lists for item in items if (uid := item.text(label_tags.REFERENCED_SOP_INSTANCE_UID)))


def _segments(values: Values) -> Iterator[Structure]:
    for item in values.items(label_tags.SEGMENT_SEQUENCE):
        kind = item.item(label_tags.SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE)
        codes = (
            _code(kind),
            *(_code(one) for one in kind.items(label_tags.SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE)),
        )
        codes = (*codes, *(_code(one) for one in item.items(label_tags.SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE)))
        number = item.short(label_tags.SEGMENT_NUMBER)
        if number:  # 0 is the background of a label map
            yield Structure(number, _name(item, label_tags.SEGMENT_LABEL), tuple(filter(None, codes)))


def _rois(values: Values) -> Iterator[Structure]:
    for item in values.items(label_tags.STRUCTURE_SET_ROI_SEQUENCE):
        number = item.integer(label_tags.ROI_NUMBER)
        if number is not None:
            yield Structure(
                number, _name(item, label_tags.ROI_NAME), (), item.text(label_tags.REFERENCED_FRAME_OF_REFERENCE_UID)
            )


def _code(item: Values) -> str:
    value, scheme = item.text(tags.CODE_VALUE), item.text(label_tags.CODING_SCHEME_DESIGNATOR)
    return f"{scheme}:{value}".upper() if value and scheme else ""


def _name(item: Values, tag: int) -> str:
    """Text as UTF-8 where it is that, else as Latin-1: a name need only be the same each time it is met."""
    raw = item.raw(tag).strip(b" \0")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _created(values: Values) -> str:
    """When the object was made, digits that can be compared."""
    for date, time in (
        (label_tags.STRUCTURE_SET_DATE, label_tags.STRUCTURE_SET_TIME),
        (label_tags.CONTENT_DATE, tags.CONTENT_TIME),
        (label_tags.INSTANCE_CREATION_DATE, label_tags.INSTANCE_CREATION_TIME),
    ):
        if day := values.text(date):
            return day.replace(".", "") + values.text(time).replace(":", "")
    return ""
