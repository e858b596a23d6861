"""Reads NIfTI-1 and NIfTI-2 files: a validated header, then exactly the bytes that it declares.

The header is parsed here and not by nibabel, so that every field is checked before anything is allocated. A file with a
doubtful field is rejected, never repaired. Layout: nifti1.h and nifti2.h of the NIfTI data format working group.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.archive.checks import check_geometry
from medssl.archive.limits import Limits
from medssl.archive.nifti.gunzip import BoundedReader
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag, Reason
from medssl.geometry import Volume

HEADER_BYTES = 540
_VOXEL_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unset, metre, millimetre, micrometre
_SAME_FORM_MM = 0.1


@dataclass(frozen=True)
class NiftiHeader:
    """Header of a NIfTI file with one scalar 3D volume.

    Attributes:
        shape: (X, Y, Z).
        voxel_type: numpy type of the stored voxels, with byte order.
        offset: Byte offset of the voxels.
        separate: Whether the voxels are in an .img file beside the header.
        slope, intercept: From stored values to physical units; (1, 0) if the header sets no scale.
        affine_ras_mm: (4, 4), voxel index to RAS.
        flags: What was noticed.
    """

    shape: tuple[int, int, int]
    voxel_type: str
    offset: int
    separate: bool
    slope: float
    intercept: float
    affine_ras_mm: npt.NDArray[np.float64]
    flags: tuple[Flag, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored voxels."""
        return math.prod(self.shape) * np.dtype(self.voxel_type).itemsize


@dataclass(frozen=True)
class _Fields:
    """Raw fields that NIfTI-1 and NIfTI-2 have in common."""

    endian: str
    separate: bool
    dim: tuple[int, ...]
    datatype: int
    pixdim: tuple[float, ...]
    offset: float
    slope: float
    intercept: float
    units: int
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]  # b, c, d, x, y, z
    sform: tuple[float, ...]


def is_nifti(start: bytes) -> bool:
    """Whether a file that begins with these bytes (after gunzip) is NIfTI or its predecessor ANALYZE."""
    return len(start) >= 348 and struct.unpack_from("<i", start)[0] in (348, 540, 0x5C010000, 0x1C020000)


def parse_header(start: bytes, *, limits: Limits) -> NiftiHeader:
    """Header of a NIfTI file from its first bytes. Raises Rejected if a field is invalid or exceeds the limits."""
    fields = _fields(start)
    shape = _shape(fields, limits)
    code = _VOXEL_TYPES.get(fields.datatype)
    if code is None:
        raise Rejected(Reason.NOT_SCALAR, f"voxel type {fields.datatype} is not a real number type")
    affine, flags = _affine(fields, shape)
    check_geometry(affine, shape, limits)
    slope, intercept = _scale(fields)
    header = NiftiHeader(shape, fields.endian + code, _offset(fields), fields.separate, slope, intercept, affine, flags)
    if header.n_bytes > limits.scan_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{header.n_bytes} bytes of voxels, above {limits.scan_bytes}")
    return header


def load_nifti(path: Path, *, limits: Limits | None = None) -> Volume:
    """Voxels in physical units and affine of a 3D NIfTI file (.nii, .nii.gz, or .hdr with its .img).

    Values keep their stored type unless the header scales them to float32. Raises DataError if the file is invalid.
    """
    try:
        return read_volume(path, limits=limits or Limits())
    except Rejected as rejected:
        raise rejected.about(path) from rejected


def read_volume(path: Path, *, limits: Limits) -> Volume:
    """As `load_nifti`, but raises Rejected with a reason code."""
    with BoundedReader(path) as reader:
        start = reader.read(HEADER_BYTES)
        header = parse_header(start, limits=limits)
        if not header.separate:
            return _volume(header, reader.read_at(header.offset, header.n_bytes, start))
    with BoundedReader(image_of(path)) as reader:
        return _volume(header, reader.read_at(header.offset, header.n_bytes, b""))


def image_of(path: Path) -> Path:
    """The file with the voxels of a .hdr file. Raises Rejected if it is missing."""
    for name in image_names(path):
        image = path.with_name(name)
        if image.is_file():
            return image
    raise Rejected(Reason.TRUNCATED, "the .img file that belongs to this .hdr is missing")


def image_names(path: Path) -> tuple[str, str]:
    """Possible names of the file with the voxels of a .hdr file."""
    stem = path.name.removesuffix(".gz").removesuffix(".hdr")
    return f"{stem}.img", f"{stem}.img.gz"


def _volume(header: NiftiHeader, data: bytearray) -> Volume:
    stored = np.frombuffer(data, header.voxel_type).reshape(header.shape, order="F")
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if (header.slope, header.intercept) == (1.0, 0.0):
        return Volume(native, header.affine_ras_mm)
    scaled = native.astype(np.float64) * header.slope + header.intercept
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are rejected as NAN_VOXELS
        return Volume(scaled.astype(np.float32), header.affine_ras_mm)


def _fields(start: bytes) -> _Fields:
    if len(start) < 348:
        raise Rejected(Reason.TRUNCATED, f"the file ends after {len(start)} bytes, within the header")
    for endian in "<>":
        size = struct.unpack_from(endian + "i", start)[0]
        if size == 348 and start[344:348] in (b"n+1\0", b"ni1\0"):
            return _fields_1(start, endian)
        if size == 540 and len(start) >= 540 and start[4:8] in (b"n+2\0", b"ni2\0"):
            return _fields_2(start, endian)
        if size == 348:
            raise Rejected(Reason.NO_GEOMETRY, "the file has an ANALYZE header, which holds no affine")
    raise Rejected(Reason.BAD_HEADER, "the file has no NIfTI header")


def _fields_1(start: bytes, endian: str) -> _Fields:
    def take(form: str, offset: int) -> tuple[Any, ...]:
        return struct.unpack_from(endian + form, start, offset)

    (datatype,), (offset, slope, intercept), (qform, sform) = take("h", 70), take("3f", 108), take("2h", 252)
    return _Fields(
        endian, start[345:346] == b"i", take("8h", 40), datatype, take("8f", 76), offset, slope, intercept, start[123],
        qform, sform, take("6f", 256), take("12f", 280),
    )  # fmt: skip


def _fields_2(start: bytes, endian: str) -> _Fields:
    def take(form: str, offset: int) -> tuple[Any, ...]:
        return struct.unpack_from(endian + form, start, offset)

    (datatype,), (offset, slope, intercept), (qform, sform) = take("h", 12), take("q2d", 168), take("2i", 344)
    return _Fields(
        endian, start[5:6] == b"i", take("8q", 16), datatype, take("8d", 104), float(offset), slope, intercept,
        take("i", 500)[0] & 0xFF, qform, sform, take("6d", 352), take("12d", 400),
    )  # fmt: skip


def _shape(fields: _Fields, limits: Limits) -> tuple[int, int, int]:
    dimensions = fields.dim[0]
    if not 1 <= dimensions <= 7:
        raise Rejected(Reason.BAD_HEADER, f"the header declares {dimensions} dimensions")
    sizes = fields.dim[1 : dimensions + 1]
    if any(size < 1 for size in sizes):
        raise Rejected(Reason.BAD_HEADER, f"the header declares a size of {min(sizes)} voxels")
    if len(sizes) < 3 or min(sizes[:3]) < 2 or any(size > 1 for size in sizes[3:]):
        raise Rejected(Reason.NOT_3D, f"the file has {' x '.join(map(str, sizes))} voxels")
    if math.prod(sizes) > limits.voxels:
        raise Rejected(Reason.TOO_LARGE, f"{' x '.join(map(str, sizes))} voxels, above {limits.voxels}")
    return sizes[0], sizes[1], sizes[2]


def _offset(fields: _Fields) -> int:
    """Byte offset of the voxels. In a .nii file an offset within the header, such as 0, means 'right after it'."""
    if not math.isfinite(fields.offset) or fields.offset < 0 or fields.offset > 2**31:
        raise Rejected(Reason.BAD_HEADER, f"vox_offset is {fields.offset:g}")
    return int(fields.offset) if fields.separate else max(int(fields.offset), 352)


def _scale(fields: _Fields) -> tuple[float, float]:
    """(slope, intercept). nifti1.h: a slope of 0 means that values are not scaled; NaN is written for the same."""
    if fields.slope == 0 or math.isnan(fields.slope):
        return 1.0, 0.0
    if not (math.isfinite(fields.slope) and math.isfinite(fields.intercept)):
        raise Rejected(Reason.BAD_NUMBER, f"scl_slope is {fields.slope:g} and scl_inter {fields.intercept:g}")
    return fields.slope, fields.intercept


def _affine(fields: _Fields, shape: tuple[int, int, int]) -> tuple[npt.NDArray[np.float64], tuple[Flag, ...]]:
    """(affine, flags): the sform if it is set, else the qform. Raises Rejected if neither is set."""
    sform = _sform(fields) if fields.sform_code > 0 else None
    qform = _qform(fields) if fields.qform_code > 0 else None
    if sform is not None:
        differ = qform is not None and not _agree(sform, qform, shape)
        return sform, (Flag.F_QFORM_SFORM_DIFF,) if differ else ()
    if qform is None:
        raise Rejected(Reason.NO_GEOMETRY, "sform_code and qform_code are both 0")
    if not np.isfinite(qform).all():
        raise Rejected(Reason.BAD_GEOMETRY, "the qform has a zero spacing or a number that is not finite")
    return qform, ()


def _sform(fields: _Fields) -> npt.NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3] = np.array(fields.sform).reshape(3, 4) * _MM_PER_UNIT.get(fields.units & 7, 1.0)
    return affine


def _qform(fields: _Fields) -> npt.NDArray[np.float64]:
    """Affine of the quaternion (nifti1.h, method 2); all NaN if the fields are invalid."""
    b, c, d, *shift = fields.quaternion
    spacing = np.array(fields.pixdim[1:4])
    if not all(map(math.isfinite, (b, c, d, *shift))) or not np.isfinite(spacing).all() or (spacing <= 0).any():
        return np.full((4, 4), np.nan)
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    norm = math.sqrt(a * a + b * b + c * c + d * d)
    a, b, c, d = a / norm, b / norm, c / norm, d / norm
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handedness = -1.0 if fields.pixdim[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing * (1.0, 1.0, handedness)
    affine[:3, 3] = shift
    affine[:3] *= _MM_PER_UNIT.get(fields.units & 7, 1.0)
    return affine


def _agree(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], shape: tuple[int, int, int]) -> bool:
    corner = np.array([*(size - 1 for size in shape), 1.0])
    first = np.abs(a[:3, 3] - b[:3, 3]).max()
    return bool(first <= _SAME_FORM_MM and np.abs((a - b) @ corner).max() <= _SAME_FORM_MM)
