"""The second layer: header records of one series to scans and reasons. Pure: no file is opened, nothing depends on
order or names.
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
    """What may be asked of assembling."""

    min_slices: int = 8
    include_derived: bool = False
    volumes_per_series: int = 4
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class AssembledScan:
    """One scan. slices: in order along the third axis. shape: (X, Y, Z). volume, n_volumes: which of how many at this
    place.
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
        """The record of the first slice: what all slices share."""
        return self.slices[0].record


@dataclass(frozen=True)
class LeftOut:
    """Files of a series that are part of no scan, and why."""

    reason: Reason
    detail: str
    files: tuple[int, ...]
    record: Record


@dataclass(frozen=True)
class Assembly:
    """All scans of one series, and all that is left out of it."""

    scans: tuple[AssembledScan, ...]
    left_out: tuple[LeftOut, ...]


def assemble(records: Sequence[tuple[int, Record]], rules: Rules, *, patient_of: PatientOf) -> Assembly:
    """Scans of one series. records: (key of the file, its header record), in any order.

    patient_of: (issuer, id) that stays for a patient under all ids and spellings. No scan holds slices of two.
    """
    left_out: list[LeftOut] = []
    usable = _usable(records, rules, patient_of, left_out)
    scans: list[AssembledScan] = []
    for group, flags in partition(usable):
        try:
            found = _scans_of(group, flags, rules, left_out)
        except Rejected as rejected:
            left_out.append(_left_out(rejected, group))
            continue
        scans += found
    scans.sort(key=_order)
    return Assembly(tuple(_without_excess(scans, rules, left_out)), tuple(_merged(left_out, patient_of)))


def _usable(
    records: Sequence[tuple[int, Record]], rules: Rules, patient_of: PatientOf, left_out: list[LeftOut]
) -> list[Slice]:
    """Slices with a geometry that may be part of a scan; the others go to `left_out`."""
    refused: dict[tuple[Reason, str, Patient], list[Slice]] = defaultdict(list)
    slices: list[Slice] = []
    for key, record in records:
        if record.reason is not None:
            left_out.append(LeftOut(Reason(record.reason), record.detail, (key,), record))
            continue
        patient = patient_of(record)
        for frame in record.frames:
            one = Slice(key, record, frame, patient=patient)
            problem = _problem(one, rules)
            if problem is None:
                slices.append(one)
            else:
                refused[problem.reason, problem.detail, patient].append(one)
    left_out += [_left_out(Rejected(reason, detail), group) for (reason, detail, _), group in refused.items()]
    return _without_copies(slices, left_out)


def _problem(one: Slice, rules: Rules) -> Rejected | None:
    frame, record = one.frame, one.record
    if is_localizer(frame.image_type):
        return Rejected(Reason.LOCALIZER, "its image type says so")
    if not rules.include_derived and is_derived(frame.image_type):
        return Rejected(Reason.DERIVED, "its image type names a projection, a map, or a part of the signal")
    if frame.position_mm is None or frame.orientation is None or frame.pixel_spacing_mm is None:
        reason = Reason.MULTIFRAME_NO_GEOMETRY if record.n_frames > 1 else Reason.NO_GEOMETRY
        return Rejected(reason, "position, orientation or pixel spacing is missing")
    return None


def _without_copies(slices: list[Slice], left_out: list[LeftOut]) -> list[Slice]:
    """One slice for each instance: equal headers make copies twins; unequal ones under one UID are used by nobody."""
    by_instance: dict[tuple[Patient, str, int, int], list[Slice]] = defaultdict(list)
    kept: list[Slice] = []
    for one in slices:
        if one.record.instance:
            by_instance[one.patient, one.record.instance, one.frame.number, one.frame.tile].append(one)
        else:
            kept.append(one)
    for copies in by_instance.values():
        copies.sort(key=lambda one: (one.record.syntax, one.record.pixel_at, one.file))
        if len({_header(one) for one in copies}) == 1:
            kept.append(_with_twins(copies))
        else:
            collision = Rejected(Reason.SOP_UID_COLLISION, f"{len(copies)} different slices under one instance UID")
            left_out.append(_left_out(collision, copies))
    return kept


def _with_twins(copies: list[Slice]) -> Slice:
    """The first of equal slices, remembering the others."""
    first, *others = copies
    further = tuple(twin for one in others for twin in (replace(one, duplicates=()), *one.duplicates))
    return replace(first, duplicates=(*first.duplicates, *further))


def _header(one: Slice) -> tuple[object, ...]:
    """All that describes the image of a slice, without how it is stored."""
    record = one.record
    return (one.frame, record.rows, record.columns, record.bits_stored, record.signed, record.photometric)


def _scans_of(
    group: list[Slice], flags: tuple[Flag, ...], rules: Rules, left_out: list[LeftOut]
) -> list[AssembledScan]:
    """Scans of slices that agree in everything but position and time."""
    placed, depths = _placed(group)
    if len(depths) < len(placed):
        placed = _without_same_headers(placed)
    if len(depths) < len(placed):
        by_repetition = split_by_repetition(placed)
        if len(by_repetition) > 1:
            parts = [_scans_of(part, (*flags, Flag.F_SPLIT_ACQ), rules, left_out) for part in by_repetition]
            return [scan for part in parts for scan in part]
    runs, flag, why = runs_of(np.array(depths), min_slices=rules.min_slices)
    uneven = why is not None and why.reason is Reason.UNEVEN_SPACING
    acquisitions = split_by_acquisition(placed, len(depths), uneven=uneven)
    if acquisitions:
        parts = [_scans_of(part, (*flags, Flag.F_SPLIT_ACQ), rules, left_out) for part in acquisitions]
        return [scan for part in parts for scan in part]
    inside = {place for run in runs for place in range(run.start, run.stop)}
    outside = [one for one in placed if one.place not in inside]
    if why is not None and outside:
        left_out.append(_left_out(why, outside))
    scans: list[AssembledScan] = []
    for run in runs:
        members = [replace(one, place=one.place - run.start) for one in placed if run.start <= one.place < run.stop]
        scans += _run_scans(members, run, (*flags, *((flag,) if flag else ())), rules, left_out)
    return scans


def _run_scans(
    members: list[Slice], run: Run, flags: tuple[Flag, ...], rules: Rules, left_out: list[LeftOut]
) -> list[AssembledScan]:
    """The volumes of an even run of positions."""
    volumes = volumes_of(members, run.length)
    if volumes.rest:
        rest = Rejected(
            Reason.INCOMPLETE_4D, f"{len(volumes.rest)} slices beside {len(volumes.complete)} complete volumes"
        )
        left_out.append(_left_out(rest, volumes.rest))
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
        raise ValueError("slices without geometry were left out before")
    positions = np.array([one.frame.position_mm for one in slices])
    grid = grid_of(positions, frame.orientation, frame.pixel_spacing_mm, thickness_mm=frame.thickness_mm)
    rows, columns = record.tile_shape
    shape = (columns, rows, len(slices))
    check_geometry(grid.affine_ras_mm, shape, rules.limits)
    n_voxels = rows * columns * len(slices)
    if n_voxels > rules.limits.voxels or n_voxels * record.bits_allocated // 8 > rules.limits.scan_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{columns} x {rows} x {len(slices)} voxels")
    found = (*flags, *grid.flags, *_stored_flags(slices))
    return AssembledScan(
        slices=slices,
        shape=shape,
        affine_ras_mm=tuple(grid.affine_ras_mm.ravel().tolist()),
        flags=tuple(dict.fromkeys(found)),
        volume=number,
        n_volumes=len(volumes.complete),
        tilt_deg=grid.tilt_deg,
    )


def _stored_flags(slices: tuple[Slice, ...]) -> Iterable[Flag]:
    """What the records say about all slices of a scan."""
    yield from (Flag(flag) for flag in sorted({flag for one in slices for flag in one.record.flags}))
    if len({(one.frame.slope, one.frame.intercept) for one in slices}) > 1:
        yield Flag.F_PER_SLICE_SCALE
    if any(one.record.lut for one in slices):
        yield Flag.F_MODALITY_LUT
    duplicates = [one.record.instance == twin.record.instance for one in slices for twin in one.duplicates]
    if any(duplicates):
        yield Flag.F_DUP_INSTANCE
    if not all(duplicates):
        yield Flag.F_DUP_POSITION
    record = slices[0].record
    if record.bits_stored < record.bits_allocated and record.high_bit != record.bits_stored - 1:
        yield Flag.F_SIGNFIX


def _placed(group: list[Slice]) -> tuple[list[Slice], list[float]]:
    """Slices with the number of their position along the normal, and the depth of each position in mm."""
    orientation = group[0].frame.orientation
    if orientation is None:
        raise ValueError("slices without geometry were left out before")
    normal = normal_of(orientation)
    deep = sorted(
        (replace(one, depth_mm=float(np.array(one.frame.position_mm) @ normal)) for one in group),
        key=lambda one: (one.depth_mm, sort_key(one)),
    )
    placed: list[Slice] = []
    depths: list[float] = []
    for one in deep:
        if not depths or one.depth_mm - depths[-1] > SAME_POSITION_MM:
            depths.append(one.depth_mm)
        placed.append(replace(one, place=len(depths) - 1))
    return placed, depths


def _without_same_headers(placed: list[Slice]) -> list[Slice]:
    """One slice for copies at one position that nothing but their UID tells apart; loading checks that they are
    equal.
    """
    kinds: dict[tuple[object, ...], list[Slice]] = defaultdict(list)
    for one in placed:
        kinds[one.place, _header(one)].append(one)
    return sorted((_with_twins(copies) for copies in kinds.values()), key=lambda one: (one.place, sort_key(one)))


def _without_excess(scans: list[AssembledScan], rules: Rules, left_out: list[LeftOut]) -> list[AssembledScan]:
    """At most `volumes_per_series` volumes of one time series, evenly over its course."""
    kept: list[AssembledScan] = []
    for scan in scans:
        most = rules.volumes_per_series
        chosen = {round(index * (scan.n_volumes - 1) / max(most - 1, 1)) for index in range(most)}
        if scan.n_volumes <= most or scan.volume in chosen:
            kept.append(scan)
        else:
            excess = Rejected(Reason.VOLUME_LIMIT, f"of {scan.n_volumes} volumes {most} are kept")
            left_out.append(_left_out(excess, scan.slices))
    return kept


def _left_out(rejected: Rejected, slices: Sequence[Slice]) -> LeftOut:
    files = tuple(sorted({one.file for one in slices}))
    first = min(slices, key=lambda one: (one.record.instance, one.frame.number))
    return LeftOut(rejected.reason, rejected.detail, files, first.record)


def _merged(left_out: list[LeftOut], patient_of: PatientOf) -> list[LeftOut]:
    """One entry for each reason, detail and patient, in one order."""
    merged: dict[tuple[Reason, str, Patient], LeftOut] = {}
    for part in left_out:
        key = (part.reason, part.detail, patient_of(part.record))
        before = merged.get(key)
        files = part.files if before is None else tuple(sorted({*before.files, *part.files}))
        record = part.record if before is None else min(before.record, part.record, key=lambda record: record.instance)
        merged[key] = replace(part, files=files, record=record)
    return [merged[key] for key in sorted(merged)]


def _order(scan: AssembledScan) -> tuple[object, ...]:
    """One order of the scans of a series, by what they are and not by the files they came from."""
    frame, record = scan.slices[0].frame, scan.record
    place = tuple(round(value, 3) for value in scan.affine_ras_mm)
    echo = frame.echo_ms or 0.0
    return (
        scan.volume,
        frame.image_type,
        echo,
        frame.kernel,
        modality_of_sop_class(record.sop_class),
        scan.shape,
        place,
        record.instance,
        scan.slices[0].patient,
    )
