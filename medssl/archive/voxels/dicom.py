"""The third layer for DICOM: slices of a planned scan to voxels in physical units."""

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

# What lies outside the field of view of a CT is air (ingest.md 1b, PixelPaddingValue).
_CT_FLOOR_HU = -1024


def read_dicom(
    source: DicomLoadPlan, *, limits: Limits, min_slices: int = 1
) -> tuple[Volume, tuple[Flag, ...], Trim | None]:
    """Voxels (X, Y, Z) after rescaling, what was noticed, and what was left out because it is damaged or its copies
    differ.

    Raises Rejected.

    Whole numbers stay whole: int16 or int32 where every slope is 1, float32 otherwise. min_slices: fewest that may be
    left.
    """
    for whole in source.files:
        whole.file.check_unchanged()
    rows, columns = _tile_shape(source.files[source.slices[0].file])
    voxels = np.zeros((len(source.slices), rows, columns), _result_type(source))
    reader = _Reader(source, limits)
    losses = Defects(damaged=reader.damaged)
    padded, used = 0, list(source.slices)
    by_file: dict[int, list[int]] = defaultdict(list)
    for depth, one in enumerate(source.slices):
        by_file[one.file].append(depth)
    for file, depths in by_file.items():
        frames = reader.frames(file, (source.slices[depth].frame for depth in depths))
        for depth in depths:
            one = source.slices[depth]
            stored = _tile(frames[one.frame], source.files[file], one.tile) if frames else None
            read = _agreed(reader, one, stored, (rows, columns))
            if isinstance(read, Reason):
                losses.doubtful[depth] = read
                continue
            used[depth], values = read
            voxels[depth], outside = reader.physical(used[depth], values, voxels.dtype)
            padded += outside
        reader.tables.clear()
    for whole in source.files:
        whole.file.check_unchanged()
    flags = (Flag.F_PADDING,) if padded else ()
    volume = Volume(voxels.transpose(2, 1, 0), np.array(source.affine_ras_mm).reshape(4, 4))
    if not losses:
        return volume, (*flags, *_intensity_flags(source, volume)), None
    volume, lost = longest_sound_run(source, used, volume, losses, limits=limits, min_slices=min_slices)
    return volume, (*flags, *lost.flags, *_intensity_flags(source, volume)), lost


@dataclass
class _Reader:
    """Stored values of a source's files. damaged: files that do not give theirs, and why; each costs itself alone."""

    source: DicomLoadPlan
    limits: Limits
    damaged: dict[int, Rejected] = field(default_factory=dict)
    tables: dict[int, Table | None] = field(default_factory=dict)

    def frames(self, file: int, numbers: Iterable[int]) -> dict[int, Pixels] | None:
        """Frames of a file by their number; None where it is damaged. Raises Rejected for what is no damage."""
        if file in self.damaged:
            return None
        whole = self.source.files[file]
        try:
            if file not in self.tables:
                self.tables[file] = read_lut(whole.file.path, limits=self.limits) if whole.lut else None
            return read_frames(whole.file.path, whole.layout, numbers, pixel_at=whole.pixel_at, limits=self.limits)
        except Rejected as rejected:
            if rejected.reason not in DAMAGE:
                raise
            self.damaged[file] = rejected
            return None

    def copy(self, twin: DuplicateSlice, tile: int) -> Pixels | None:
        """Stored values of a copy of a slice; None where it is damaged."""
        frames = self.frames(twin.file, [twin.frame])
        return _tile(frames[twin.frame], self.source.files[twin.file], tile) if frames else None

    def physical(self, one: SliceLocation, stored: Pixels, dtype: npt.DTypeLike) -> tuple[Pixels, int]:
        """A slice in physical units, and how many of its voxels are padding."""
        values = _physical(stored, one, self.tables[one.file], dtype)
        outside = _padding(stored, self.source.files[one.file], self.source.modality)
        if outside is None:
            return values, 0
        values[outside] = _CT_FLOOR_HU
        return values, int(np.count_nonzero(outside))


def _agreed(
    reader: _Reader, one: SliceLocation, stored: Pixels | None, shape: tuple[int, int]
) -> tuple[SliceLocation, Pixels] | Reason:
    """The slice as it is read, from its first sound copy, with its stored values; the reason where it cannot be used.

    stored: its own values, None where they are damaged. Sound copies that differ are used by nobody, because nobody
    knows which is right.
    """
    used = one
    for twin in one.duplicates:
        values = reader.copy(twin, one.tile)
        if values is None:
            continue
        if stored is None and values.shape == shape:
            used, stored = replace(one, file=twin.file, frame=twin.frame), values
        elif stored is None or not np.array_equal(values, stored):
            return Reason.SOP_UID_COLLISION if twin.same_instance else Reason.DUPLICATE_POSITION
    return reader.damaged[one.file].reason if stored is None else (used, stored)


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


def _result_type(source: DicomLoadPlan) -> npt.DTypeLike:
    """The smallest of int16, int32 and float32 that holds every physical value exactly, or as exactly as float32
    does.
    """
    low, high = 0.0, 0.0
    for one in source.slices:
        file = source.files[one.file]
        lut = file.lut or any(source.files[twin.file].lut for twin in one.duplicates)
        if one.slope != 1 or one.intercept != int(one.intercept) or lut:
            return np.float32
        bits = file.layout.bits_stored
        least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if file.layout.signed else (0, (1 << bits) - 1)
        low, high = min(low, least + one.intercept), max(high, most + one.intercept)
    if low >= -(2**15) and high < 2**15:
        return np.int16
    return np.int32 if low >= -(2**31) and high < 2**31 else np.float32


def _physical(stored: Pixels, one: SliceLocation, table: Table | None, dtype: npt.DTypeLike) -> Pixels:
    """Stored values in physical units: through the lookup table where there is one, else slope and intercept."""
    if table is not None:
        first, entries = table
        return entries[np.clip(stored.astype(np.int64) - first, 0, len(entries) - 1)].astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return np.add(stored, int(one.intercept), dtype=dtype, casting="unsafe")
    with np.errstate(over="ignore"):  # what overflows float32 becomes infinite and is rejected as NAN_VOXELS
        scaled: Pixels = (stored * np.float64(one.slope) + one.intercept).astype(dtype)
    return scaled


def _padding(stored: Pixels, file: DicomFile, modality: str) -> npt.NDArray[np.bool_] | None:
    """Where a CT has no voxel. In MR and PET the padding value is a dark intensity like any other and stays."""
    if file.padding is None or modality != "CT":
        return None
    low, high = file.padding
    outside = (stored >= low) & (stored <= high)
    return outside if outside.any() else None


def _intensity_flags(source: DicomLoadPlan, volume: Volume) -> tuple[Flag, ...]:
    """F_CT_NOT_HU where a CT has no negative value and no intercept."""
    if source.modality != "CT" or any(one.intercept for one in source.slices):
        return ()
    return (Flag.F_CT_NOT_HU,) if volume.voxels.min() >= 0 else ()
