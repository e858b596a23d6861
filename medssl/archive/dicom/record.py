"""Header records: all that assembling and loading need to know of a DICOM file, and nothing that names a patient but
the ids.

Named tuples, because an archive has millions of them and they travel as JSON. Positions and directions are in DICOM's
frame (LPS, mm); only `geometry` of an assembled scan is RAS.
"""

import json
from typing import Any, NamedTuple

from medssl.archive.dicom.uids import EXPLICIT_VR_BIG_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN

# Made once: json.dumps makes an encoder for every call that asks for other separators.
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode

Vector = tuple[float, float, float]


class Frame(NamedTuple):
    """One slice: of a classic file the only one; of a multi-frame file or a mosaic one of many.

    number: index of the frame in its file. tile: index in a mosaic or grid, else -1. position_mm: centre of the first
    voxel. orientation: direction of a row, then of a column. pixel_spacing_mm: (between rows, between columns).
    """

    number: int
    tile: int = -1
    position_mm: Vector | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    image_type: tuple[str, ...] = ()
    echo_ms: float | None = None
    echo_number: int | None = None
    repetition_ms: float | None = None
    inversion_ms: float | None = None
    flip_deg: float | None = None
    kernel: str = ""
    coil: str = ""
    acquisition: int | None = None
    instance: int | None = None
    temporal: int | None = None
    b_value: float | None = None
    gradient: tuple[float, ...] | None = None
    trigger_ms: float | None = None
    time: str = ""
    thickness_mm: float | None = None


class Record(NamedTuple):
    """One DICOM file. verdict, detail: why it can be no part of a scan, where it cannot.

    patient, study, series, instance: real identifiers, for the private index only. grid: tiles per row of a mosaic or
    grid, else 0. padding: (lowest, highest) stored value that means 'no voxel'. pixel_at: first byte of native pixels
    where the header scan met it, else -1. flags: codes of `reasons.Flag`.
    """

    patient: str
    issuer: str
    study: str
    series: str
    instance: str
    sop_class: str
    syntax: str
    modality: str
    rows: int
    columns: int
    n_frames: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None
    grid: int
    frame_of_reference: str
    manufacturer: str
    model: str
    body_part: str
    lut: bool
    pixel_at: int
    pixel_bytes: int
    frames: tuple[Frame, ...]
    flags: tuple[str, ...] = ()
    verdict: str | None = None
    detail: str = ""

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(rows, columns) of one slice: of a tile where the file is a mosaic or grid."""
        return (self.rows // self.grid, self.columns // self.grid) if self.grid else (self.rows, self.columns)

    @property
    def big_endian(self) -> bool:
        """Whether pixels are stored with the most significant byte first."""
        return self.syntax in (EXPLICIT_VR_BIG_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN)


def record_json(record: Record) -> str:
    """A record as it lies in the index."""
    return _ENCODE(record)


def parse_record(text: str) -> Record:
    """The record that `record_json` wrote."""
    values: list[Any] = [_frozen(value) for value in json.loads(text)]
    record = Record(*values)
    return record._replace(frames=tuple(Frame(*frame) for frame in record.frames))


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
