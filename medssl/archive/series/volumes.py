"""Sorts slices at repeated positions into volumes: one for each time point, b-value or cardiac phase."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from medssl.archive.dicom.record import Frame, Record


@dataclass(frozen=True)
class Slice:
    """A frame of a file in a series.

    Attributes:
        file: The caller's key of the file.
        record: Header record of the file.
        frame: The frame.
        depth_mm: Position along the normal.
        position_index: Number of that position among those of the group, -1 before it is known.
        duplicates: Slices that the header cannot tell from this slice_. Loading checks that their pixels are equal.
        patient: (issuer, id) of the patient.
    """

    file: int
    record: Record
    frame: Frame
    depth_mm: float = 0.0
    position_index: int = -1
    duplicates: "tuple[Slice, ...]" = ()
    patient: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volumes:
    """Volumes of a group of slices.

    Attributes:
        complete: Volumes in order, each with one slice per position.
        remaining: Slices that are part of no complete volume.
    """

    complete: tuple[tuple[Slice, ...], ...]
    remaining: tuple[Slice, ...]


Key = Callable[[Slice], Hashable]

# Often one of these alone separates the volumes; tried in this order (ingest.md 1b).
_SINGLE_KEYS: tuple[Key, ...] = (
    lambda slice_: slice_.frame.temporal,
    lambda slice_: slice_.frame.acquisition,
    lambda slice_: (slice_.frame.b_value, slice_.frame.gradient),
    lambda slice_: slice_.frame.trigger_ms,
    lambda slice_: slice_.record.instance,
    lambda slice_: slice_.frame.time,
)


Order = tuple[float | int | str, ...]
_MIN_PASS = 3  # slices; with fewer in a pass every order would count as interleaved


def sort_key(slice_: Slice) -> Order:
    """Order of slices at the same position, missing numbers first. Never used for spatial order."""
    return (*_in_time(slice_), slice_.record.instance, slice_.frame.number)


def _in_time(slice_: Slice) -> Order:
    """All header values that tell when a slice was acquired."""
    frame = slice_.frame
    numbers = (frame.temporal, frame.acquisition, frame.b_value, frame.trigger_ms, frame.instance)
    return (*map(_number, numbers), frame.time)


def _number(value: float | int | None) -> float:
    return float("-inf") if value is None else float(value)


# Possible orders of acquisition. One is usable only if no two slices are equal in it.
_ORDERS: tuple[Callable[[Slice], Order], ...] = (
    lambda slice_: (_number(slice_.frame.instance),),
    lambda slice_: (slice_.frame.time,),
    _in_time,
)


def volumes_of(slices: Sequence[Slice], n_positions: int) -> Volumes:
    """Sort slices at `n_positions` positions into volumes."""
    # From the strongest evidence to the weakest: a header value that splits the slices into complete volumes without a
    # remainder; equally many slices at every position, where the n-th of each makes the n-th volume; the value that
    # gives most complete volumes, or the complete runs through all positions, whichever gives more.
    counts = Counter(slice_.position_index for slice_ in slices)
    if max(counts.values()) == 1:
        return Volumes((_by_position(slices),), ()) if len(counts) == n_positions else Volumes((), tuple(slices))
    best: Volumes | None = None
    for key in _SINGLE_KEYS:
        volumes = _split_by_key(slices, key, n_positions)
        if not volumes.remaining:
            return volumes
        if best is None or len(volumes.complete) > len(best.complete):
            best = volumes
    if len(set(counts.values())) == 1 and len(counts) == n_positions:
        return Volumes(_split_by_rank(slices), ())
    by_run = _split_by_run(slices, n_positions)
    return by_run if best is None or len(by_run.complete) > len(best.complete) else best


def _split_by_key(slices: Sequence[Slice], key: Key, n_positions: int) -> Volumes:
    groups: dict[Hashable, list[Slice]] = defaultdict(list)
    for slice_ in slices:
        groups[key(slice_)].append(slice_)
    complete, remaining = [], []
    for group in groups.values():
        if len(group) == n_positions and len({slice_.position_index for slice_ in group}) == n_positions:
            complete.append(_by_position(group))
        else:
            remaining += group
    return Volumes(tuple(sorted(complete, key=lambda volume: sort_key(volume[0]))), tuple(remaining))


def _split_by_rank(slices: Sequence[Slice]) -> tuple[tuple[Slice, ...], ...]:
    """The n-th slice of each position makes the n-th volume."""
    positions: dict[int, list[Slice]] = defaultdict(list)
    for slice_ in slices:
        positions[slice_.position_index].append(slice_)
    ordered = [sorted(positions[index], key=sort_key) for index in sorted(positions)]
    return tuple(tuple(volume) for volume in zip(*ordered, strict=True))


def _split_by_run(slices: Sequence[Slice], n_positions: int) -> Volumes:
    """Volumes of a series with aborted acquisitions: the complete runs through all positions, in order of time."""
    # A new run begins where a position repeats. This could mix slices of two runs, so it counts only if all complete
    # runs pass the positions in one order that scanners use and every aborted run follows that order as far as it
    # goes. A run can also be aborted at its start: cutting from the end gives a second reading. If the readings, over
    # all orders of time and both directions, leave different slices over, none is certain and no volume is complete.
    readings: dict[Hashable, Volumes] = {}
    for order in _ORDERS:
        timed = sorted(slices, key=order)
        if any(order(before) == order(after) for before, after in pairwise(timed)):
            continue
        cut_from_end = [run[::-1] for run in reversed(_runs(timed[::-1]))]
        for runs in (_runs(timed), cut_from_end):
            complete = [run for run in runs if len(run) == n_positions]
            if complete and _same_path(complete[0], runs):
                remaining = tuple(slice_ for run in runs if len(run) < n_positions for slice_ in run)
                key = frozenset((slice_.file, slice_.frame.number, slice_.frame.tile) for slice_ in remaining)
                readings[key] = Volumes(tuple(map(_by_position, complete)), remaining)
    return readings.popitem()[1] if len(readings) == 1 else Volumes((), tuple(slices))


def _runs(timed: Sequence[Slice]) -> list[list[Slice]]:
    """Slices in order of time, cut where a position repeats."""
    runs: list[list[Slice]] = []
    passed: set[int] = set()
    for slice_ in timed:
        if not runs or slice_.position_index in passed:
            runs.append([])
            passed = set()
        runs[-1].append(slice_)
        passed.add(slice_.position_index)
    return runs


def _same_path(complete: Sequence[Slice], runs: Sequence[Sequence[Slice]]) -> bool:
    """Whether all runs pass the positions as a complete run does: in sequence, or in interleaved passes."""
    # Interleaved with step n, a run makes n passes: all its steps are n but those where a pass begins, n - 1 of them.
    path = [slice_.position_index for slice_ in complete]
    steps = [after - before for before, after in pairwise(path)]
    passes = abs(steps[0]) if steps else 1
    if sum(step != steps[0] for step in steps) != passes - 1 or (passes > 1 and len(path) < _MIN_PASS * passes):
        return False
    rank = {index: number for number, index in enumerate(path)}
    return all(
        rank[before.position_index] < rank[after.position_index] for run in runs for before, after in pairwise(run)
    )


def _by_position(slices: Sequence[Slice]) -> tuple[Slice, ...]:
    return tuple(sorted(slices, key=lambda slice_: slice_.position_index))
