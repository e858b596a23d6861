"""Slices of a series to groups that one volume, or a time series of volumes, can be made of."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from medssl.archive.series.volumes import Slice
from medssl.cohort.reasons import Flag

_ORIENTATION, _SPACING_MM = 1e-3, 1e-4
_ECHO_MS, _FLIP_DEG = 0.05, 0.1
_RELATIVE = 0.01

Group = list[Slice]
Same = Callable[[Slice, Slice], bool]


def partition(slices: Sequence[Slice]) -> list[tuple[Group, tuple[Flag, ...]]]:
    """Groups of slices that agree in patient, matrix, orientation, image type, echo and acquisition, and what the
    series was split by.

    The outcome depends on no order: slices are put into one first.
    """
    groups: list[Group] = [sorted(slices, key=_canonical)]
    flags: list[Flag] = []
    for flag, split in _STEPS:
        after = [part for group in groups for part in split(group)]
        if len(after) > len(groups):
            flags.append(flag)
        groups = after
    return [(group, tuple(dict.fromkeys(flags))) for group in groups]


def split_by_repetition(group: Group) -> list[Group]:
    """Further groups by repetition time, for slices that collide otherwise.

    Not before: where the heart triggers, every slice has its own.
    """
    return _cluster(group, lambda a, b: _near(a.frame.repetition_ms, b.frame.repetition_ms, relative=_RELATIVE))


def split_by_acquisition(placed: Group, n_places: int, *, uneven: bool) -> list[Group]:
    """Groups by acquisition number where two acquisitions overlap or interleave in space; none where that is not so.

    Overlap: positions collide, and no acquisition covers all of them; where one does, the others are further time
    points.
    Interleaved: all positions together are uneven.
    """
    numbers = {one.frame.acquisition for one in placed}
    if len(numbers) < 2:
        return []
    groups = _exact(lambda one: one.frame.acquisition)(placed)
    covered = [len({one.place for one in group}) for group in groups]
    collide = n_places < len(placed) and all(count == len(group) for count, group in zip(covered, groups, strict=True))
    return groups if (collide or uneven) and max(covered) < n_places else []


def _canonical(one: Slice) -> tuple[str, int, str, tuple[str, ...]]:
    number = one.frame.number if one.frame.tile < 0 else one.frame.tile
    return one.record.instance, number, one.record.syntax, one.patient


def _exact(key: Callable[[Slice], Hashable]) -> Callable[[Group], list[Group]]:
    def split(group: Group) -> list[Group]:
        parts: dict[Hashable, Group] = defaultdict(list)
        for one in group:
            parts[key(one)].append(one)
        return list(parts.values())

    return split


def _cluster(group: Group, same: Same) -> list[Group]:
    """Groups of slices that are the same as the first of their group."""
    parts: list[Group] = []
    for one in group:
        for part in parts:
            if same(part[0], one):
                part.append(one)
                break
        else:
            parts.append([one])
    return parts


def _near(a: float | None, b: float | None, *, absolute: float = 0.0, relative: float = 0.0) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= max(absolute, relative * max(abs(a), abs(b)))


def _same_orientation(a: Slice, b: Slice) -> bool:
    pairs = zip(a.frame.orientation or (), b.frame.orientation or (), strict=True)
    return all(abs(x - y) <= _ORIENTATION for x, y in pairs)


def _same_pixels(a: Slice, b: Slice) -> bool:
    pairs = zip(a.frame.pixel_spacing_mm or (), b.frame.pixel_spacing_mm or (), strict=True)
    return all(abs(x - y) <= _SPACING_MM for x, y in pairs)


def _same_echo(a: Slice, b: Slice) -> bool:
    return _near(a.frame.echo_ms, b.frame.echo_ms, absolute=_ECHO_MS)


def _same_acquisition(a: Slice, b: Slice) -> bool:
    one, other = a.frame, b.frame
    return _near(one.flip_deg, other.flip_deg, absolute=_FLIP_DEG) and _near(
        one.inversion_ms, other.inversion_ms, relative=_RELATIVE
    )


def _pixel_kind(one: Slice) -> Hashable:
    record = one.record
    return (*record.tile_shape, record.bits_allocated, record.signed, record.photometric)


_STEPS: tuple[tuple[Flag, Callable[[Group], list[Group]]], ...] = (
    # First: where UIDs were blanked or made equal, the id is all that keeps two patients apart.
    (Flag.F_SPLIT_PATIENT, _exact(lambda one: one.patient)),
    (Flag.F_SPLIT_ORIENT, _exact(lambda one: one.record.frame_of_reference)),
    (Flag.F_SPLIT_ORIENT, lambda group: _cluster(group, _same_orientation)),
    (Flag.F_SPLIT_DIM, _exact(_pixel_kind)),
    (Flag.F_SPLIT_DIM, lambda group: _cluster(group, _same_pixels)),
    (Flag.F_SPLIT_TYPE, _exact(lambda one: tuple(word.upper() for word in one.frame.image_type))),
    (Flag.F_SPLIT_ECHO, _exact(lambda one: one.frame.echo_number)),
    (Flag.F_SPLIT_ECHO, lambda group: _cluster(group, _same_echo)),
    (Flag.F_SPLIT_ACQ, _exact(lambda one: (one.frame.kernel, one.frame.coil))),
    (Flag.F_SPLIT_ACQ, lambda group: _cluster(group, _same_acquisition)),
)
