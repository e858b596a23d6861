"""Frames that share positions to volumes: which slices belong to one time point, b-value or phase."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from medssl.archive.record import Frame, Record


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
    twins: "tuple[Slice, ...]" = ()
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


def sort_key(one: Slice) -> tuple[float | int | str, ...]:
    """Order of repeated slices at one position; missing numbers come first. Never used for space."""
    frame = one.frame

    def number(value: float | int | None) -> float:
        return float("-inf") if value is None else float(value)

    return (
        number(frame.temporal), number(frame.acquisition), number(frame.b_value), number(frame.trigger_ms),
        number(frame.instance),
        frame.time, one.record.instance, frame.number,
    )  # fmt: skip


def volumes_of(slices: Sequence[Slice], n_places: int) -> Volumes:
    """Bring frames at `n_places` positions together to volumes.

    A key that gives whole volumes wins; else, where every position is filled equally often, the n-th frame of each
    position makes the n-th
    volume; else complete volumes of the key that gives most of them are kept.
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
    ranked = _ragged(slices, n_places)
    return ranked if best is None or len(ranked.complete) > len(best.complete) else best


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


def _ragged(slices: Sequence[Slice], n_places: int) -> Volumes:
    """As `_ranked` for series that were aborted: as many volumes as the emptiest position allows."""
    by_place = _sorted_places(slices)
    whole = min(map(len, by_place)) if len(by_place) == n_places else 0
    complete = tuple(tuple(place[number] for place in by_place) for number in range(whole))
    return Volumes(complete, tuple(one for place in by_place for one in place[whole:]))


def _sorted_places(slices: Sequence[Slice]) -> list[list[Slice]]:
    places: dict[int, list[Slice]] = defaultdict(list)
    for one in slices:
        places[one.place].append(one)
    return [sorted(places[place], key=sort_key) for place in sorted(places)]


def _by_place(slices: Sequence[Slice]) -> tuple[Slice, ...]:
    return tuple(sorted(slices, key=lambda one: one.place))
