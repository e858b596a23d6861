"""Assembles the header records of one series into scans, and gives reasons for what is left out.

Pure functions: no file is opened, and the result depends neither on the order nor on the names of the files.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from medssl.archive.checks import check_geometry
from medssl.archive.dicom.record import Record
from medssl.archive.dicom.uids import modality_of_sop_class
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.series.grid import SAME_POSITION_MM, Run, grid_of, normal_of, runs_of
from medssl.archive.series.image_type import is_derived, is_localizer
from medssl.archive.series.partition import partition, split_by_acquisition, split_by_repetition
from medssl.archive.series.volumes import Slice, Volumes, sort_key, volumes_of
from medssl.cohort.reasons import Flag, Reason

Patient = tuple[str, ...]  # issuer and id
PatientOf = Callable[[Record], Patient]


@dataclass(frozen=True)
class Rules:
    """Settings of assembling."""

    min_slices: int = 8
    include_derived: bool = False
    volumes_per_series: int = 4
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class AssembledScan:
    """One scan.

    Attributes:
        slices: In order along the third axis.
        shape: (X, Y, Z).
        affine_ras_mm: Voxel index to RAS, row by row.
        flags: What was noticed, repaired or split.
        volume: Index of the volume in its time series.
        n_volumes: Number of volumes at the same positions.
        tilt_deg: Tilt of the gantry.
    """

    slices: tuple[Slice, ...]
    shape: tuple[int, int, int]
    affine_ras_mm: tuple[float, ...]
    flags: tuple[Flag, ...]
    volume: int
    n_volumes: int
    tilt_deg: float

    @property
    def record(self) -> Record:
        """The record of the first slice; what describes the series is equal in all slices."""
        return self.slices[0].record


@dataclass(frozen=True)
class LeftOut:
    """Files of a series with slices that belong to no scan, and why."""

    reason: Reason
    detail: str
    files: tuple[int, ...]
    record: Record


@dataclass(frozen=True)
class Assembly:
    """All scans of one series, and what is left out of it."""

    scans: tuple[AssembledScan, ...]
    left_out: tuple[LeftOut, ...]


def assemble(records: Sequence[tuple[int, Record]], rules: Rules, *, patient_of: PatientOf) -> Assembly:
    """Scans of one series, none with slices of two patients.

    Args:
        records: (key of the file, its header record), in any order.
        rules: Settings.
        patient_of: From a record to (issuer, id), the same under all spellings of a patient.
    """
    left_out: list[LeftOut] = []
    usable = _usable(records, rules, patient_of, left_out)
    scans: list[AssembledScan] = []
    for group, flags in partition(usable):
        try:
            scans += _scans_of(group, flags, rules, left_out)
        except Rejected as rejected:
            left_out.append(_left_out(rejected, group))
    scans.sort(key=_order)
    return Assembly(tuple(_without_excess(scans, rules, left_out)), tuple(_merged(left_out, patient_of)))


def _usable(
    records: Sequence[tuple[int, Record]], rules: Rules, patient_of: PatientOf, left_out: list[LeftOut]
) -> list[Slice]:
    """Slices that may be part of a scan; the others are added to `left_out`."""
    rejected_slices: dict[tuple[Reason, str, Patient], list[Slice]] = defaultdict(list)
    slices: list[Slice] = []
    for key, record in records:
        if record.reason is not None:
            left_out.append(LeftOut(Reason(record.reason), record.detail, (key,), record))
            continue
        patient = patient_of(record)
        for frame in record.frames:
            slice_ = Slice(key, record, frame, patient=patient)
            problem = _problem(slice_, rules)
            if problem is None:
                slices.append(slice_)
            else:
                rejected_slices[problem.reason, problem.detail, patient].append(slice_)
    left_out += [_left_out(Rejected(reason, detail), group) for (reason, detail, _), group in rejected_slices.items()]
    return _merge_instances(slices, left_out)


def _problem(slice_: Slice, rules: Rules) -> Rejected | None:
    frame, record = slice_.frame, slice_.record
    if is_localizer(frame.image_type):
        return Rejected(Reason.LOCALIZER, "its image type says so")
    if not rules.include_derived and is_derived(frame.image_type):
        return Rejected(Reason.DERIVED, "its image type names a projection, a map, or a part of the signal")
    if frame.position_mm is None or frame.orientation is None or frame.pixel_spacing_mm is None:
        reason = Reason.MULTIFRAME_NO_GEOMETRY if record.n_frames > 1 else Reason.NO_GEOMETRY
        return Rejected(reason, "position, orientation or pixel spacing is missing")
    return None


def _merge_instances(slices: list[Slice], left_out: list[LeftOut]) -> list[Slice]:
    """One slice for each instance. Slices with one UID become duplicates if their headers are equal, else all go."""
    by_instance: dict[tuple[Patient, str, int, int], list[Slice]] = defaultdict(list)
    merged: list[Slice] = []
    for slice_ in slices:
        if slice_.record.instance:
            by_instance[slice_.patient, slice_.record.instance, slice_.frame.number, slice_.frame.tile].append(slice_)
        else:
            merged.append(slice_)
    for copies in by_instance.values():
        copies.sort(key=lambda slice_: (slice_.record.syntax, slice_.record.pixel_at, slice_.file))
        if len({_image_header(slice_) for slice_ in copies}) == 1:
            merged.append(_with_duplicates(copies))
        else:
            collision = Rejected(Reason.SOP_UID_COLLISION, f"{len(copies)} different slices under one instance UID")
            left_out.append(_left_out(collision, copies))
    return merged


def _with_duplicates(copies: list[Slice]) -> Slice:
    """The first of equal slices, with the others as its duplicates."""
    first, *others = copies
    duplicates = tuple(copy for slice_ in others for copy in (replace(slice_, duplicates=()), *slice_.duplicates))
    return replace(first, duplicates=(*first.duplicates, *duplicates))


def _image_header(slice_: Slice) -> tuple[object, ...]:
    """All values that describe the image of a slice, but not how it is stored."""
    record = slice_.record
    return (slice_.frame, record.rows, record.columns, record.bits_stored, record.signed, record.photometric)


def _scans_of(
    group: list[Slice], flags: tuple[Flag, ...], rules: Rules, left_out: list[LeftOut]
) -> list[AssembledScan]:
    """Scans of slices that agree in everything but position and time."""
    # Several slices at one position can be, from the harmless to the doubtful: duplicates of one slice, acquisitions
    # with different repetition times, overlapping or interleaved acquisitions, or time points. The
    # explanations are tried in this order, because a later one also fits what an earlier one
    # explains, but wrongly: duplicates would become time points, and two interleaved acquisitions one volume with half
    # the slice distance.
    # A split by repetition time or acquisition number starts over with each part, because a part has positions of its
    # own. Each split gives smaller parts, so the recursion ends.
    slices, depths = _position_slices(group)
    if len(depths) < len(slices):
        slices = _merge_positions(slices)
    parts: list[list[Slice]] = split_by_repetition(slices) if len(depths) < len(slices) else []
    runs, flag, excluded = runs_of(np.array(depths), min_slices=rules.min_slices)
    if len(parts) < 2:
        uneven = excluded is not None and excluded.reason is Reason.UNEVEN_SPACING
        parts = split_by_acquisition(slices, len(depths), uneven=uneven)
    if parts:
        return [scan for part in parts for scan in _scans_of(part, (*flags, Flag.F_SPLIT_ACQ), rules, left_out)]
    inside = {index for run in runs for index in range(run.start, run.stop)}
    outside = [slice_ for slice_ in slices if slice_.position_index not in inside]
    if excluded is not None and outside:
        left_out.append(_left_out(excluded, outside))
    scans: list[AssembledScan] = []
    for run in runs:
        members = [
            replace(slice_, position_index=slice_.position_index - run.start)
            for slice_ in slices
            if run.start <= slice_.position_index < run.stop
        ]
        scans += _run_scans(members, run, (*flags, *((flag,) if flag else ())), rules, left_out)
    return scans


def _run_scans(
    members: list[Slice], run: Run, flags: tuple[Flag, ...], rules: Rules, left_out: list[LeftOut]
) -> list[AssembledScan]:
    """The volumes of an evenly spaced run of positions."""
    volumes = volumes_of(members, run.length)
    if volumes.remaining:
        incomplete = Rejected(
            Reason.INCOMPLETE_4D, f"{len(volumes.remaining)} slices beside {len(volumes.complete)} complete volumes"
        )
        left_out.append(_left_out(incomplete, volumes.remaining))
        flags = (*flags, Flag.F_RAGGED_4D)
    if len(volumes.complete) > 1:
        flags = (*flags, Flag.F_4D)
    scans = []
    for number, slices in enumerate(volumes.complete):
        try:
            scans.append(_scan(slices, flags, number, volumes, rules))
        except Rejected as rejected:
            left_out.append(_left_out(rejected, slices))
    return scans


def _scan(
    slices: tuple[Slice, ...], flags: tuple[Flag, ...], number: int, volumes: Volumes, rules: Rules
) -> AssembledScan:
    frame, record = slices[0].frame, slices[0].record
    if frame.orientation is None or frame.pixel_spacing_mm is None:
        raise ValueError("slices without geometry are left out by _problem")
    positions = np.array([slice_.frame.position_mm for slice_ in slices])
    grid = grid_of(positions, frame.orientation, frame.pixel_spacing_mm, thickness_mm=frame.thickness_mm)
    rows, columns = record.tile_shape
    shape = (columns, rows, len(slices))
    check_geometry(grid.affine_ras_mm, shape, rules.limits)
    n_voxels = rows * columns * len(slices)
    if n_voxels > rules.limits.voxels or n_voxels * record.bits_allocated // 8 > rules.limits.scan_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{columns} x {rows} x {len(slices)} voxels")
    all_flags = (*flags, *grid.flags, *_stored_flags(slices))
    return AssembledScan(
        slices=slices,
        shape=shape,
        affine_ras_mm=tuple(grid.affine_ras_mm.ravel().tolist()),
        flags=tuple(dict.fromkeys(all_flags)),
        volume=number,
        n_volumes=len(volumes.complete),
        tilt_deg=grid.tilt_deg,
    )


def _stored_flags(slices: tuple[Slice, ...]) -> Iterable[Flag]:
    """Flags that follow from the records of a scan's slices."""
    yield from (Flag(flag) for flag in sorted({flag for slice_ in slices for flag in slice_.record.flags}))
    if len({(slice_.frame.slope, slice_.frame.intercept) for slice_ in slices}) > 1:
        yield Flag.F_PER_SLICE_SCALE
    if any(slice_.record.lut for slice_ in slices):
        yield Flag.F_MODALITY_LUT
    same_instance = [slice_.record.instance == copy.record.instance for slice_ in slices for copy in slice_.duplicates]
    if any(same_instance):
        yield Flag.F_DUP_INSTANCE
    if not all(same_instance):
        yield Flag.F_DUP_POSITION
    record = slices[0].record
    if record.bits_stored < record.bits_allocated and record.high_bit != record.bits_stored - 1:
        yield Flag.F_SIGNFIX


def _position_slices(group: list[Slice]) -> tuple[list[Slice], list[float]]:
    """Slices with their position index, in order along the normal, and the depth of each position in mm."""
    orientation = group[0].frame.orientation
    if orientation is None:
        raise ValueError("slices without geometry are left out by _problem")
    normal = normal_of(orientation)
    by_depth = sorted(
        (replace(slice_, depth_mm=float(np.array(slice_.frame.position_mm) @ normal)) for slice_ in group),
        key=lambda slice_: (slice_.depth_mm, sort_key(slice_)),
    )
    # Depths come from decimal strings, so equal positions may differ by rounding. A slice is compared with the first of
    # the current position and not with its predecessor: many small steps must not add up to one position.
    slices: list[Slice] = []
    depths: list[float] = []
    for slice_ in by_depth:
        if not depths or slice_.depth_mm - depths[-1] > SAME_POSITION_MM:
            depths.append(slice_.depth_mm)
        slices.append(replace(slice_, position_index=len(depths) - 1))
    return slices, depths


def _merge_positions(slices: list[Slice]) -> list[Slice]:
    """One slice for all slices at a position that differ only in their UID; loading checks that they are equal."""
    groups: dict[tuple[object, ...], list[Slice]] = defaultdict(list)
    for slice_ in slices:
        groups[slice_.position_index, _image_header(slice_)].append(slice_)
    merged = map(_with_duplicates, groups.values())
    return sorted(merged, key=lambda slice_: (slice_.position_index, sort_key(slice_)))


def _without_excess(scans: list[AssembledScan], rules: Rules, left_out: list[LeftOut]) -> list[AssembledScan]:
    """At most `volumes_per_series` volumes of one time series, evenly over its course."""
    selected: list[AssembledScan] = []
    limit = rules.volumes_per_series
    for scan in scans:
        chosen = {round(index * (scan.n_volumes - 1) / max(limit - 1, 1)) for index in range(limit)}
        if scan.n_volumes <= limit or scan.volume in chosen:
            selected.append(scan)
        else:
            excess = Rejected(Reason.VOLUME_LIMIT, f"of {scan.n_volumes} volumes {limit} are kept")
            left_out.append(_left_out(excess, scan.slices))
    return selected


def _left_out(rejected: Rejected, slices: Sequence[Slice]) -> LeftOut:
    files = tuple(sorted({slice_.file for slice_ in slices}))
    first = min(slices, key=lambda slice_: (slice_.record.instance, slice_.frame.number))
    return LeftOut(rejected.reason, rejected.detail, files, first.record)


def _merged(left_out: list[LeftOut], patient_of: PatientOf) -> list[LeftOut]:
    """One entry for each reason, detail and patient, sorted."""
    merged: dict[tuple[Reason, str, Patient], LeftOut] = {}
    for part in left_out:
        key = (part.reason, part.detail, patient_of(part.record))
        before = merged.get(key)
        files = part.files if before is None else tuple(sorted({*before.files, *part.files}))
        record = part.record if before is None else min(before.record, part.record, key=lambda record: record.instance)
        merged[key] = replace(part, files=files, record=record)
    return [merged[key] for key in sorted(merged)]


def _order(scan: AssembledScan) -> tuple[object, ...]:
    """Order of the scans of a series: by their content, never by their files."""
    frame, record = scan.slices[0].frame, scan.record
    affine = tuple(round(value, 3) for value in scan.affine_ras_mm)
    echo = frame.echo_ms or 0.0
    return (
        scan.volume,
        frame.image_type,
        echo,
        frame.kernel,
        modality_of_sop_class(record.sop_class),
        scan.shape,
        affine,
        record.instance,
        scan.slices[0].patient,
    )
