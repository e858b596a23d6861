"""The third layer for DICOM: slices of a planned scan to voxels in physical units."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from medssl.archive.dataset import read_lut
from medssl.archive.limits import Limits
from medssl.archive.pixels import Values, read_frames
from medssl.archive.reasons import Flag, Reason
from medssl.archive.sources import DicomFile, DicomSource, SourceSlice
from medssl.archive.trim import Trim, trim
from medssl.geometry import Volume

# What lies outside the field of view of a CT is air (ingest.md 1b, PixelPaddingValue).
_CT_FLOOR_HU = -1024


def read_dicom(
    source: DicomSource, *, limits: Limits, min_slices: int = 1
) -> tuple[Volume, tuple[Flag, ...], Trim | None]:
    """Voxels (X, Y, Z) after rescaling, what was noticed, and what was left out because its copies differ.

    Raises Rejected.

    Whole numbers stay whole: int16 or int32 where every slope is 1, float32 otherwise. min_slices: fewest that may be
    left.
    """
    for file in source.files:
        file.file.check_unchanged()
    first = source.files[source.slices[0].file]
    rows, columns = _tile_shape(first)
    voxels = np.empty((len(source.slices), rows, columns), _result_type(source))
    padded, doubtful = 0, dict[int, Reason]()
    by_file: dict[int, list[tuple[int, SourceSlice]]] = defaultdict(list)
    for depth, one in enumerate(source.slices):
        by_file[one.file].append((depth, one))
    for index, members in by_file.items():
        file = source.files[index]
        frames = _frames(file, (one.frame for _, one in members), limits)
        table = read_lut(file.file.path, limits=limits) if file.lut else None
        for depth, one in members:
            stored = _tile(frames[one.frame], file, one.tile)
            if doubt := _doubt(source, one, stored, limits):
                doubtful[depth] = doubt
            outside = _padding(stored, file, source.family)
            voxels[depth] = _physical(stored, one, table, voxels.dtype)
            if outside is not None:
                voxels[depth][outside] = _CT_FLOOR_HU
                padded += int(np.count_nonzero(outside))
    for file in source.files:
        file.file.check_unchanged()
    flags = (Flag.F_PADDING,) if padded else ()
    volume = Volume(voxels.transpose(2, 1, 0), np.array(source.affine_ras_mm).reshape(4, 4))
    if not doubtful:
        return volume, (*flags, *_intensity_flags(source, volume)), None
    volume, lost = trim(source, volume, doubtful, limits=limits, min_slices=min_slices)
    return volume, (*flags, *lost.flags, *_intensity_flags(source, volume)), lost


def _frames(file: DicomFile, numbers: Iterable[int], limits: Limits) -> dict[int, Values]:
    return read_frames(file.file.path, file.layout, numbers, pixel_at=file.pixel_at, limits=limits)


def _tile_shape(file: DicomFile) -> tuple[int, int]:
    layout = file.layout
    return (layout.rows // file.grid, layout.columns // file.grid) if file.grid else (layout.rows, layout.columns)


def _tile(frame: Values, file: DicomFile, tile: int) -> Values:
    """One tile of a mosaic or grid, or the frame itself."""
    if tile < 0:
        return frame
    rows, columns = _tile_shape(file)
    down, right = divmod(tile, file.grid)
    return frame[down * rows : (down + 1) * rows, right * columns : (right + 1) * columns]


def _doubt(source: DicomSource, one: SourceSlice, stored: Values, limits: Limits) -> Reason | None:
    """Why a slice cannot be used: its copies hold other values, and nobody knows which is right."""
    for twin in one.twins:
        file = source.files[twin.file]
        copy = _tile(_frames(file, [twin.frame], limits)[twin.frame], file, one.tile)
        if not np.array_equal(copy, stored):
            return Reason.SOP_UID_COLLISION if twin.same_instance else Reason.DUPLICATE_POSITION
    return None


def _result_type(source: DicomSource) -> npt.DTypeLike:
    """The smallest of int16, int32 and float32 that holds every physical value exactly, or as exactly as float32
    does.
    """
    low, high = 0.0, 0.0
    for one in source.slices:
        file = source.files[one.file]
        if one.slope != 1 or one.intercept != int(one.intercept) or file.lut:
            return np.float32
        bits = file.layout.bits_stored
        least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if file.layout.signed else (0, (1 << bits) - 1)
        low, high = min(low, least + one.intercept), max(high, most + one.intercept)
    if low >= -(2**15) and high < 2**15:
        return np.int16
    return np.int32 if low >= -(2**31) and high < 2**31 else np.float32


def _physical(
    stored: Values, one: SourceSlice, table: tuple[int, npt.NDArray[np.uint16]] | None, dtype: npt.DTypeLike
) -> Values:
    """Stored values in physical units: through the lookup table where there is one, else slope and intercept."""
    if table is not None:
        first, entries = table
        return entries[np.clip(stored.astype(np.int64) - first, 0, len(entries) - 1)].astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return np.add(stored, int(one.intercept), dtype=dtype, casting="unsafe")
    with np.errstate(over="ignore"):  # what overflows float32 becomes infinite and is rejected as NAN_VOXELS
        scaled: Values = (stored * np.float64(one.slope) + one.intercept).astype(dtype)
    return scaled


def _padding(stored: Values, file: DicomFile, family: str) -> npt.NDArray[np.bool_] | None:
    """Where a CT has no voxel. In MR and PET the padding value is a dark intensity like any other and stays."""
    if file.padding is None or family != "CT":
        return None
    low, high = file.padding
    outside = (stored >= low) & (stored <= high)
    return outside if outside.any() else None


def _intensity_flags(source: DicomSource, volume: Volume) -> tuple[Flag, ...]:
    """CT_NOT_HU where a CT has no negative value and no intercept."""
    if source.family != "CT" or any(one.intercept for one in source.slices):
        return ()
    return (Flag.CT_NOT_HU,) if volume.voxels.min() >= 0 else ()
