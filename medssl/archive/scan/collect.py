"""Sources to index: only what is new or changed since the last run is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medssl.archive.index.database import TRANSIENT_REASONS, Index
from medssl.archive.index.entries import IndexedFile
from medssl.archive.index.missing import forget_below
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.scan.recognise import FileBatch, left_out, read_headers
from medssl.archive.sources.open import open_source
from medssl.archive.sources.walk import FileStamp, Folder, is_remote, walk
from medssl.archive.workers.local import TaskResult, Workers
from medssl.cohort.reasons import Reason

BATCH_FILES = 64


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

    def batches(roots: Sequence[Path]) -> Iterator[FileBatch]:
        nonlocal met
        for root in roots:
            home = root.parent if root.is_file() else root
            pending: list[tuple[Path, FileStamp]] = []
            listed: set[Path] = set()
            readable = True
            for folder in _folders(root, follow_symlinks, without, limits):
                met += len(folder.files)
                if is_remote(root):
                    listed.add(folder.path)
                readable = readable and (folder.problem is None or folder.path != root)
                index.put_files(_leaving(folder, index, home))
                index.put_files(refused(folder, home))
                fresh = to_read(folder, index, whole=not root.is_file())
                pending += [(folder.path / name, folder.files[name]) for name in fresh]
                while len(pending) >= BATCH_FILES:
                    yield FileBatch(home, tuple(pending[:BATCH_FILES]), limits)
                    pending = pending[BATCH_FILES:]
            if pending:
                yield FileBatch(home, tuple(pending), limits)
            if not root.is_file():
                index.mark_vanished(root.parent, [root.name] if readable else [])
                forget_below(index, root, listed)

    read = 0
    far = [root for root in roots if is_remote(root)]
    near = [root for root in roots if not is_remote(root)]
    for group, timeout_s in ((near, limits.header_seconds), (far, limits.container_seconds)):
        for count in index_headers(batches(group), index, workers, timeout_s=timeout_s):
            read += count
            seen(met, read)
    seen(met, read)
    return met


def _folders(root: Path, follow_symlinks: bool, without: Path | None, limits: Limits) -> Iterator[Folder]:
    """Folders of a source, wherever it is."""
    if not is_remote(root):
        yield from walk(root, follow_symlinks=follow_symlinks, without=without)
        return
    with open_source(root, limits) as source:
        yield from source.folders()


def index_headers(batches: Iterable[FileBatch], index: Index, workers: Workers, *, timeout_s: float) -> Iterator[int]:
    """Headers of the parcels' files into the index, as they come; how many there were each time."""
    for done in workers.run(read_headers, batches, timeout_s=timeout_s):
        files = done.result if done.result is not None else _files_one_by_one(done, workers, timeout_s)
        index.put_files(files)
        yield len(files)


def to_read(folder: Folder, index: Index, *, whole: bool) -> list[str]:
    """Names of files that are new, changed, or worth another try; where the whole folder was listed, files that are
    gone are marked.
    """
    known = index.known(folder.path)
    if whole and not folder.unreadable:
        gone = [
            name for name in known if not any(name in kept for kept in (folder.files, folder.leaving, folder.refused))
        ]
        if gone:
            index.mark_vanished(folder.path, gone)
    fresh = []
    for name in sorted(folder.files):
        stamp, reason = known.get(name, (None, None))
        if stamp != folder.files[name] or reason in TRANSIENT_REASONS:
            fresh.append(name)
    return fresh


def _leaving(folder: Folder, index: Index, home: Path) -> list[IndexedFile]:
    """Links that lead out of their source, where they were not noted before."""
    if not folder.leaving:
        return []
    known = index.known(folder.path)
    detail = "the link leads out of its source"
    return [
        IndexedFile(folder.path / name, home, FileStamp(0, 0), "other", Reason.SYMLINK_OUTSIDE_ROOT, detail, None, None)
        for name in folder.leaving
        if name not in known
    ]


def refused(folder: Folder, home: Path) -> list[IndexedFile]:
    """Files that the listing alone tells to be left out, and the folder itself where it cannot be listed. That one is a
    name in the folder above, whose next listing forgets it.
    """
    found = [left_out(folder.path / name, home, FileStamp(0, 0), why) for name, why in folder.refused.items()]
    if folder.problem is not None:
        found.append(replace(left_out(folder.path, home, FileStamp(0, 0), folder.problem), kind="folder"))
    return found


def _files_one_by_one(
    done: TaskResult[FileBatch, list[IndexedFile]], workers: Workers, timeout_s: float
) -> list[IndexedFile]:
    """A parcel whose worker died, file by file, so that only the culprit is left out."""
    batch, found = done.task, []
    singles = (FileBatch(batch.root, (file,), batch.limits) for file in batch.files)
    for single in workers.run(read_headers, singles, timeout_s=timeout_s):
        if single.result is not None:
            found += single.result
            continue
        path, stamp = single.task.files[0]
        failure = single.failure or Rejected(Reason.SCAN_CRASH, "no answer")
        found.append(IndexedFile(path, batch.root, stamp, "other", Reason.SCAN_CRASH, failure.detail, None, None))
    return found
