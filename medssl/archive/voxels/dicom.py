"""Reads the slices of a planned DICOM scan as voxels in physical units."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from medssl.archive.dicom.dataset import read_lut
from medssl.archive.dicom.pixels import Pixels, read_frames
from medssl.archive.index.load_plan import DicomFile, DicomLoadPlan, DuplicateSlice, SliceLocation
from medssl.archive.index.planned_scan import DAMAGE, Trim
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.sound_run import Defects, longest_sound_run
from medssl.cohort.reasons import Flag, Reason
from medssl.geometry import Volume

Table = tuple[int, npt.NDArray[np.uint16]]

# Value outside the field of view of a CT: air (ingest.md 1b, PixelPaddingValue).
_CT_FLOOR_HU = -1024


def read_dicom(
    plan: DicomLoadPlan, *, limits: Limits, min_slices: int = 1
) -> tuple[Volume, tuple[Flag, ...], Trim | None]:
    """Read a DICOM scan.

    Args:
        plan: The load plan, with every file on disk.
        limits: Limits for files and geometry.
        min_slices: Smallest number of slices that may remain when damaged ones are left out.

    Returns:
        (volume, flags, trim). The volume is (X, Y, Z) in physical units: int16 or int32 if every slope is 1 and every
        intercept an integer, else float32. trim: which slices are left out; None if all are used.

    Raises:
        Rejected: The scan cannot be used.
    """
    # Files are compared with their stamp before and after reading: a file that changes in between is not used.
    for file in plan.files:
        file.file.check_unchanged()
    rows, columns = _tile_shape(plan.files[plan.slices[0].file])
    voxels = np.zeros((len(plan.slices), rows, columns), _result_type(plan))
    reader = _Reader(plan, limits)
    defects = Defects(damaged=reader.damaged)
    padded, used = 0, list(plan.slices)
    by_file: dict[int, list[int]] = defaultdict(list)
    for index, slice_ in enumerate(plan.slices):
        by_file[slice_.file].append(index)
    for number, indices in by_file.items():
        frames = reader.frames(number, (plan.slices[index].frame for index in indices))
        for index in indices:
            slice_ = plan.slices[index]
            stored = _tile(frames[slice_.frame], plan.files[number], slice_.tile) if frames else None
            agreed = _agreed(reader, slice_, stored, (rows, columns))
            if isinstance(agreed, Reason):
                defects.unusable[index] = agreed
                continue
            used[index], values = agreed
            voxels[index], n_padded = reader.physical(used[index], values, voxels.dtype)
            padded += n_padded
        reader.tables.clear()
    for file in plan.files:
        file.file.check_unchanged()
    flags = (Flag.F_PADDING,) if padded else ()
    volume = Volume(voxels.transpose(2, 1, 0), np.array(plan.affine_ras_mm).reshape(4, 4))
    if not defects:
        return volume, (*flags, *_intensity_flags(plan, volume)), None
    volume, trim = longest_sound_run(plan, used, volume, defects, limits=limits, min_slices=min_slices)
    return volume, (*flags, *trim.flags, *_intensity_flags(plan, volume)), trim


@dataclass
class _Reader:
    """Reads the stored values of a load plan's files.

    Attributes:
        damaged: Number of a file to the reason why it cannot be read. Other files are read all the same.
        tables: Number of a file to its modality lookup table, if it has one.
    """

    plan: DicomLoadPlan
    limits: Limits
    damaged: dict[int, Rejected] = field(default_factory=dict)
    tables: dict[int, Table | None] = field(default_factory=dict)

    def frames(self, number: int, frames: Iterable[int]) -> dict[int, Pixels] | None:
        """Frames of a file; None if the file is damaged. Raises Rejected for other reasons."""
        if number in self.damaged:
            return None
        file = self.plan.files[number]
        try:
            if number not in self.tables:
                self.tables[number] = read_lut(file.file.path, limits=self.limits) if file.lut else None
            return read_frames(file.file.path, file.layout, frames, pixel_at=file.pixel_at, limits=self.limits)
        except Rejected as rejected:
            if rejected.reason not in DAMAGE:
                raise
            self.damaged[number] = rejected
            return None

    def duplicate(self, duplicate: DuplicateSlice, tile: int) -> Pixels | None:
        """Stored values of a duplicate of a slice; None if its file is damaged."""
        frames = self.frames(duplicate.file, [duplicate.frame])
        return _tile(frames[duplicate.frame], self.plan.files[duplicate.file], tile) if frames else None

    def physical(self, slice_: SliceLocation, stored: Pixels, dtype: npt.DTypeLike) -> tuple[Pixels, int]:
        """(slice in physical units, number of its padding voxels)."""
        values = _physical(stored, slice_, self.tables[slice_.file], dtype)
        outside = _padding(stored, self.plan.files[slice_.file], self.plan.modality)
        if outside is None:
            return values, 0
        values[outside] = _CT_FLOOR_HU
        return values, int(np.count_nonzero(outside))


def _agreed(
    reader: _Reader, slice_: SliceLocation, stored: Pixels | None, shape: tuple[int, int]
) -> tuple[SliceLocation, Pixels] | Reason:
    """The location and stored values on which a slice and its duplicates agree, or the reason why it cannot be used.

    Args:
        reader: Reads the duplicates.
        slice_: The slice.
        stored: Its stored values; None if its file is damaged.
        shape: (rows, columns) of the scan.
    """
    # A damaged copy is replaced by the first sound duplicate. If sound copies differ, none of them is used: nothing
    # tells which is right.
    location = slice_
    for duplicate in slice_.duplicates:
        values = reader.duplicate(duplicate, slice_.tile)
        if values is None:
            continue
        if stored is None and values.shape == shape:
            location, stored = replace(slice_, file=duplicate.file, frame=duplicate.frame), values
        elif stored is None or not np.array_equal(values, stored):
            return Reason.SOP_UID_COLLISION if duplicate.same_instance else Reason.DUPLICATE_POSITION
    return reader.damaged[slice_.file].reason if stored is None else (location, stored)


def _tile_shape(file: DicomFile) -> tuple[int, int]:
    layout = file.layout
    return (layout.rows // file.grid, layout.columns // file.grid) if file.grid else (layout.rows, layout.columns)


def _tile(frame: Pixels, file: DicomFile, tile: int) -> Pixels:
    """One tile of a mosaic or grid, or the frame itself."""
    if tile < 0:
        return frame
    rows, columns = _tile_shape(file)
    down, right = divmod(tile, file.grid)
    return frame[down * rows : (down + 1) * rows, right * columns : (right + 1) * columns]


def _result_type(plan: DicomLoadPlan) -> npt.DTypeLike:
    """The smallest of int16 and int32 that holds every physical value exactly, else float32."""
    low, high = 0.0, 0.0
    for slice_ in plan.slices:
        file = plan.files[slice_.file]
        lut = file.lut or any(plan.files[duplicate.file].lut for duplicate in slice_.duplicates)
        if slice_.slope != 1 or slice_.intercept != int(slice_.intercept) or lut:
            return np.float32
        bits = file.layout.bits_stored
        lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if file.layout.signed else (0, (1 << bits) - 1)
        low, high = min(low, lowest + slice_.intercept), max(high, highest + slice_.intercept)
    if low >= -(2**15) and high < 2**15:
        return np.int16
    return np.int32 if low >= -(2**31) and high < 2**31 else np.float32


def _physical(stored: Pixels, slice_: SliceLocation, table: Table | None, dtype: npt.DTypeLike) -> Pixels:
    """Stored values in physical units: by the lookup table if there is one, else by slope and intercept."""
    if table is not None:
        first, entries = table
        return entries[np.clip(stored.astype(np.int64) - first, 0, len(entries) - 1)].astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return np.add(stored, int(slice_.intercept), dtype=dtype, casting="unsafe")
    with np.errstate(over="ignore"):  # what overflows float32 becomes infinite and is rejected as NAN_VOXELS
        scaled: Pixels = (stored * np.float64(slice_.slope) + slice_.intercept).astype(dtype)
    return scaled


def _padding(stored: Pixels, file: DicomFile, modality: str) -> npt.NDArray[np.bool_] | None:
    """Padding voxels of a CT, or None. In MR and PET the padding value is an intensity like any other."""
    if file.padding is None or modality != "CT":
        return None
    low, high = file.padding
    outside = (stored >= low) & (stored <= high)
    return outside if outside.any() else None


def _intensity_flags(plan: DicomLoadPlan, volume: Volume) -> tuple[Flag, ...]:
    """F_CT_NOT_HU if a CT has no negative value and no intercept."""
    if plan.modality != "CT" or any(slice_.intercept for slice_ in plan.slices):
        return ()
    return (Flag.F_CT_NOT_HU,) if volume.voxels.min() >= 0 else ()
