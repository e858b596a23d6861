"""Header records: all that assembling and loading need to know of a DICOM file.

Records are named tuples because an archive has millions of them, which cross process boundaries and lie in the index as
JSON. Positions and directions are in DICOM's frame (LPS, mm); only the affine of an assembled scan is RAS.
"""

from typing import NamedTuple

from pydantic import ConfigDict, TypeAdapter

Vector = tuple[float, float, float]


class Frame(NamedTuple):
    """One slice: the only one of a classic file, or one of many in a multi-frame file or a mosaic.

    Attributes:
        number: Index of the frame in its file.
        tile: Index of the tile in a mosaic or grid, else -1.
        position_mm: Centre of the first voxel (ImagePositionPatient).
        orientation: Direction of a row, then of a column (ImageOrientationPatient).
        pixel_spacing_mm: Distance between rows, then between columns.
        trigger_ms: Cardiac trigger time, or frame reference time of PET.
        thickness_mm: SpacingBetweenSlices, else SliceThickness.
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
    """Header of one DICOM file.

    Attributes:
        patient, issuer, study, series, instance: Real identifiers, for the private index only.
        padding: (lowest, highest) stored value that means 'no voxel'; None if the header names none.
        grid: Tiles per row of a mosaic or grid, else 0.
        lut: Whether the file has a modality lookup table.
        pixel_at: Byte offset of the pixel element if the header scan reached it, else -1.
        pixel_bytes: Bytes of native pixels; 0 if they are compressed.
        flags: Codes of `reasons.Flag`.
        reason: Code of `reasons.Reason` if the file cannot be part of a scan, else None.
        detail: The values that led to `reason`.
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
    reason: str | None = None
    detail: str = ""

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(rows, columns) of one slice: of a tile where the file is a mosaic or grid."""
        return (self.rows // self.grid, self.columns // self.grid) if self.grid else (self.rows, self.columns)


# NaN and infinity, which private elements can hold, survive the round trip.
_ADAPTER = TypeAdapter(Record, config=ConfigDict(ser_json_inf_nan="constants"))


def record_json(record: Record) -> str:
    """The record as the index stores it."""
    return _ADAPTER.dump_json(record).decode()


def parse_record(text: str) -> Record:
    """The record that `record_json` wrote."""
    return _ADAPTER.validate_json(text)
