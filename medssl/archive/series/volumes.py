"""Frames that share positions to volumes: which slices belong to one time point, b-value or phase."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from medssl.archive.dicom.record import Frame, Record


@dataclass(frozen=True)
class Slice:
    """A frame of a file in a series. file: the caller's key of the file. depth_mm: position along the normal. patient:
    (issuer, id) of whom it shows.

    twins: copies that the header cannot tell from it; loading checks that they are equal.
    """

    file: int
    record: Record
    frame: Frame
    depth_mm: float = 0.0
    place: int = -1
    duplicates: "tuple[Slice, ...]" = ()
    patient: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volumes:
    """Complete volumes in order, each with one slice per place, and the slices that are left over."""

    complete: tuple[tuple[Slice, ...], ...]
    rest: tuple[Slice, ...]


Key = Callable[[Slice], Hashable]

# One of these alone often tells the volumes apart; tried in this order (ingest.md 1b).
_SINGLE_KEYS: tuple[Key, ...] = (
    lambda one: one.frame.temporal,
    lambda one: one.frame.acquisition,
    lambda one: (one.frame.b_value, one.frame.gradient),
    lambda one: one.frame.trigger_ms,
    lambda one: one.record.instance,
    lambda one: one.frame.time,
)


Order = tuple[float | int | str, ...]
_MIN_PASS = 3  # slices; with fewer in a pass any order would be an interleaved one


def sort_key(one: Slice) -> Order:
    """Order of repeated slices at one position; missing numbers come first. Never used for space."""
    return (*_in_time(one), one.record.instance, one.frame.number)


def _in_time(one: Slice) -> Order:
    """All that the header says of when a slice was taken."""
    frame = one.frame
    numbers = (frame.temporal, frame.acquisition, frame.b_value, frame.trigger_ms, frame.instance)
    return (*map(_number, numbers), frame.time)


def _number(value: float | int | None) -> float:
    return float("-inf") if value is None else float(value)


# Orders in which slices may have been taken, each of which holds where it leaves no two slices equal.
_ORDERS: tuple[Callable[[Slice], Order], ...] = (
    lambda one: (_number(one.frame.instance),),
    lambda one: (one.frame.time,),
    _in_time,
)


def volumes_of(slices: Sequence[Slice], n_places: int) -> Volumes:
    """Bring frames at `n_places` positions together to volumes.

    A key that gives whole volumes wins; else, where every position is filled equally often, the n-th frame of each
    position makes the n-th volume; else complete volumes of the key that gives most of them are kept, or those that
    were taken in one go.
    """
    counts = Counter(one.place for one in slices)
    if max(counts.values()) == 1:
        return Volumes((_by_place(slices),), ()) if len(counts) == n_places else Volumes((), tuple(slices))
    best: Volumes | None = None
    for key in _SINGLE_KEYS:
        found = _split(slices, key, n_places)
        if not found.rest:
            return found
        if best is None or len(found.complete) > len(best.complete):
            best = found
    if len(set(counts.values())) == 1 and len(counts) == n_places:
        return Volumes(_ranked(slices), ())
    tried = _attempts(slices, n_places)
    return tried if best is None or len(tried.complete) > len(best.complete) else best


def _split(slices: Sequence[Slice], key: Key, n_places: int) -> Volumes:
    groups: dict[Hashable, list[Slice]] = defaultdict(list)
    for one in slices:
        groups[key(one)].append(one)
    complete, rest = [], []
    for group in groups.values():
        if len(group) == n_places and len({one.place for one in group}) == n_places:
            complete.append(_by_place(group))
        else:
            rest += group
    return Volumes(tuple(sorted(complete, key=lambda volume: sort_key(volume[0]))), tuple(rest))


def _ranked(slices: Sequence[Slice]) -> tuple[tuple[Slice, ...], ...]:
    """The n-th frame of every position is of the n-th volume."""
    by_place = _sorted_places(slices)
    return tuple(tuple(volume) for volume in zip(*by_place, strict=True))


def _attempts(slices: Sequence[Slice], n_places: int) -> Volumes:
    """Volumes of a series in which attempts broke off: what was taken in one go, as told by the order of time.

    An attempt ends where a position comes again. That is believed where all complete ones pass the positions in one
    order that scanners use, and each of the others in the same order as far as it goes; and where there is only one way
    to read it, whether told from the front or from the end. Else no slice is part of a complete volume, because two
    attempts might be mixed in it.
    """
    readings: dict[Hashable, Volumes] = {}
    for order in _ORDERS:
        timed = sorted(slices, key=order)
        if any(order(one) == order(after) for one, after in pairwise(timed)):
            continue
        backwards = [piece[::-1] for piece in reversed(_pieces(timed[::-1]))]
        for pieces in (_pieces(timed), backwards):
            whole = [piece for piece in pieces if len(piece) == n_places]
            if whole and _same_path(whole, pieces):
                rest = tuple(one for piece in pieces if len(piece) < n_places for one in piece)
                key = frozenset((one.file, one.frame.number, one.frame.tile) for one in rest)
                readings[key] = Volumes(tuple(map(_by_place, whole)), rest)
    return readings.popitem()[1] if len(readings) == 1 else Volumes((), tuple(slices))


def _pieces(timed: Sequence[Slice]) -> list[list[Slice]]:
    """Slices in one go, cut where a position comes again."""
    pieces: list[list[Slice]] = []
    met: set[int] = set()
    for one in timed:
        if not pieces or one.place in met:
            pieces.append([])
            met = set()
        pieces[-1].append(one)
        met.add(one.place)
    return pieces


def _same_path(whole: Sequence[Sequence[Slice]], pieces: Sequence[Sequence[Slice]]) -> bool:
    """Whether all pieces pass the positions as the first complete one does: one after another, or in as many
    interleaved passes as its step is wide.
    """
    path = [one.place for one in whole[0]]
    steps = [after - before for before, after in pairwise(path)]
    passes = abs(steps[0]) if steps else 1
    if sum(step != steps[0] for step in steps) != passes - 1 or (passes > 1 and len(path) < _MIN_PASS * passes):
        return False
    when = {place: number for number, place in enumerate(path)}
    return all(when[one.place] < when[after.place] for piece in pieces for one, after in pairwise(piece))


def _sorted_places(slices: Sequence[Slice]) -> list[list[Slice]]:
    places: dict[int, list[Slice]] = defaultdict(list)
    for one in slices:
        places[one.place].append(one)
    return [sorted(places[place], key=sort_key) for place in sorted(places)]


def _by_place(slices: Sequence[Slice]) -> tuple[Slice, ...]:
    return tuple(sorted(slices, key=lambda one: one.place))
