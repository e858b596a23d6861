"""Sources to index: only what is new or changed since the last run is read."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from medssl.archive.discover import Folder, Stamp, walk
from medssl.archive.index import PASSING, Index, IndexedFile
from medssl.archive.limits import Limits
from medssl.archive.reasons import Reason
from medssl.archive.rejection import Rejected
from medssl.archive.scan import Parcel, scan_parcel
from medssl.archive.workers import Done, Workers

PARCEL_FILES = 64


def collect(
    roots: Sequence[Path],
    index: Index,
    workers: Workers,
    *,
    limits: Limits,
    follow_symlinks: bool,
    without: Path | None,
    seen: Callable[[int, int], None],
) -> int:
    """Bring the index up to date with the files under `roots`; returns how many files there are.

    `seen(files, read)` is told how many files were met and how many headers were read so far.
    """
    met = 0

    def parcels() -> Iterator[Parcel]:
        nonlocal met
        for root in roots:
            home = root.parent if root.is_file() else root
            pending: list[tuple[Path, Stamp]] = []
            for folder in walk(root, follow_symlinks=follow_symlinks, without=without):
                met += len(folder.files)
                index.put_files(_leaving(folder, index, home))
                pending += [(folder.path / name, folder.files[name]) for name in _to_read(folder, index, root)]
                while len(pending) >= PARCEL_FILES:
                    yield Parcel(home, tuple(pending[:PARCEL_FILES]), limits)
                    pending = pending[PARCEL_FILES:]
            if pending:
                yield Parcel(home, tuple(pending), limits)

    read = 0
    for done in workers.run(scan_parcel, parcels(), timeout_s=limits.header_seconds):
        files = done.result if done.result is not None else _one_by_one(done, workers)
        index.put_files(files)
        read += len(files)
        seen(met, read)
    seen(met, read)
    return met


def _to_read(folder: Folder, index: Index, root: Path) -> list[str]:
    """Names of files that are new, changed, or worth another try; files that are gone are marked."""
    known = index.known(folder.path)
    if not root.is_file() and not folder.unreadable:
        gone = [name for name in known if name not in folder.files and name not in folder.leaving]
        if gone:
            index.mark_vanished(folder.path, gone)
    fresh = []
    for name in sorted(folder.files):
        stamp, reason = known.get(name, (None, None))
        if stamp != folder.files[name] or reason in PASSING:
            fresh.append(name)
    return fresh


def _leaving(folder: Folder, index: Index, home: Path) -> list[IndexedFile]:
    """Links that lead out of their source, where they were not noted before."""
    if not folder.leaving:
        return []
    known = index.known(folder.path)
    finding = "the link leads out of its source"
    return [
        IndexedFile(folder.path / name, home, Stamp(0, 0), "other", Reason.SYMLINK_OUTSIDE_ROOT, finding, None, None)
        for name in folder.leaving
        if name not in known
    ]


def _one_by_one(done: Done[Parcel, list[IndexedFile]], workers: Workers) -> list[IndexedFile]:
    """A parcel whose worker died, file by file, so that only the culprit is left out."""
    parcel, found = done.task, []
    singles = (Parcel(parcel.root, (file,), parcel.limits) for file in parcel.files)
    for single in workers.run(scan_parcel, singles, timeout_s=parcel.limits.header_seconds):
        if single.result is not None:
            found += single.result
            continue
        path, stamp = single.task.files[0]
        failure = single.failure or Rejected(Reason.SCAN_CRASH, "no answer")
        found.append(IndexedFile(path, parcel.root, stamp, "other", Reason.SCAN_CRASH, failure.finding, None, None))
    return found
