"""Partitions the slices of a series into groups, each of which can form a volume or a time series of volumes."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from medssl.archive.series.volumes import Slice
from medssl.cohort.reasons import Flag

# Largest differences within a group: of direction cosines, pixel spacing, echo time, flip angle; of repetition and
# inversion time, relative.
_ORIENTATION, _SPACING_MM = 1e-3, 1e-4
_ECHO_MS, _FLIP_DEG = 0.05, 0.1
_RELATIVE = 0.01

Group = list[Slice]
Same = Callable[[Slice, Slice], bool]


def partition(slices: Sequence[Slice]) -> list[tuple[Group, tuple[Flag, ...]]]:
    """Groups of slices that agree in patient, matrix, orientation, image type, echo and acquisition.

    Returns:
        (group, flags) for each group; the flags say what the series was split by.
    """
    # Clusters compare slices with the first of their group, so their outcome depends on the order: sort first.
    groups: list[Group] = [sorted(slices, key=_canonical_order)]
    flags: list[Flag] = []
    for flag, split in _SPLITS:
        after = [part for group in groups for part in split(group)]
        if len(after) > len(groups):
            flags.append(flag)
        groups = after
    return [(group, tuple(dict.fromkeys(flags))) for group in groups]


def split_by_repetition(group: Group) -> list[Group]:
    """Groups by repetition time, only for slices that share positions: under cardiac triggering it varies by slice."""
    return _cluster(group, lambda a, b: _near(a.frame.repetition_ms, b.frame.repetition_ms, relative=_RELATIVE))


def split_by_acquisition(slices: Group, n_positions: int, *, uneven: bool) -> list[Group]:
    """Groups by acquisition number if acquisitions overlap or interleave in space, else an empty list.

    Args:
        slices: Slices with a position index.
        n_positions: Number of distinct positions.
        uneven: Whether all positions together are unevenly spaced.
    """
    if len({slice_.frame.acquisition for slice_ in slices}) < 2:
        return []
    groups = _exact(lambda slice_: slice_.frame.acquisition)(slices)
    covered = [len({slice_.position_index for slice_ in group}) for group in groups]
    # Overlap: positions repeat, but never within an acquisition. Interleaving: the positions together are uneven. If
    # slice_ acquisition covers all positions, the others are further time points and belong to the same group.
    overlap = n_positions < len(slices) and covered == [len(group) for group in groups]
    return groups if (overlap or uneven) and max(covered) < n_positions else []


def _canonical_order(slice_: Slice) -> tuple[str, int, str, tuple[str, ...]]:
    number = slice_.frame.number if slice_.frame.tile < 0 else slice_.frame.tile
    return slice_.record.instance, number, slice_.record.syntax, slice_.patient


def _exact(key: Callable[[Slice], Hashable]) -> Callable[[Group], list[Group]]:
    def split(group: Group) -> list[Group]:
        parts: dict[Hashable, Group] = defaultdict(list)
        for slice_ in group:
            parts[key(slice_)].append(slice_)
        return list(parts.values())

    return split


def _cluster(group: Group, same: Same) -> list[Group]:
    """Groups of slices that are the same as the first slice of their group."""
    clusters: list[Group] = []
    for slice_ in group:
        for cluster in clusters:
            if same(cluster[0], slice_):
                cluster.append(slice_)
                break
        else:
            clusters.append([slice_])
    return clusters


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
    return _near(a.frame.flip_deg, b.frame.flip_deg, absolute=_FLIP_DEG) and _near(
        a.frame.inversion_ms, b.frame.inversion_ms, relative=_RELATIVE
    )


def _pixel_format(slice_: Slice) -> Hashable:
    record = slice_.record
    return (*record.tile_shape, record.bits_allocated, record.signed, record.photometric)


_SPLITS: tuple[tuple[Flag, Callable[[Group], list[Group]]], ...] = (
    # Patients first: if UIDs were blanked or made equal, only the patient id separates two patients. Frame of reference
    # and orientation come before image type and echo, so that every later group has one geometry. Exact
    # criteria come before the tolerant one of the same flag, which then compares fewer slices.
    (Flag.F_SPLIT_PATIENT, _exact(lambda slice_: slice_.patient)),
    (Flag.F_SPLIT_ORIENT, _exact(lambda slice_: slice_.record.frame_of_reference)),
    (Flag.F_SPLIT_ORIENT, lambda group: _cluster(group, _same_orientation)),
    (Flag.F_SPLIT_DIM, _exact(_pixel_format)),
    (Flag.F_SPLIT_DIM, lambda group: _cluster(group, _same_pixels)),
    (Flag.F_SPLIT_TYPE, _exact(lambda slice_: tuple(word.upper() for word in slice_.frame.image_type))),
    (Flag.F_SPLIT_ECHO, _exact(lambda slice_: slice_.frame.echo_number)),
    (Flag.F_SPLIT_ECHO, lambda group: _cluster(group, _same_echo)),
    (Flag.F_SPLIT_ACQ, _exact(lambda slice_: (slice_.frame.kernel, slice_.frame.coil))),
    (Flag.F_SPLIT_ACQ, lambda group: _cluster(group, _same_acquisition)),
)
