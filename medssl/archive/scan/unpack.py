"""Archives that the header scan met: listed, and their members read like files of a folder."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.archive.index.database import TRANSIENT_REASONS, Index
from medssl.archive.index.entries import IndexedFile
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.scan.collect import index_headers, refused, to_read
from medssl.archive.scan.recognise import FileBatch
from medssl.archive.sources.open import open_source
from medssl.archive.sources.source import MEMBER
from medssl.archive.sources.walk import FileStamp, Folder, is_remote
from medssl.archive.workers.local import Workers
from medssl.cohort.reasons import Reason

# Archives whose members are read together; their lists are in memory.
_CONTAINERS_AT_ONCE = 64
# A compressed tar is read from its front for every parcel.
_BATCH_MEMBERS = 4096


@dataclass(frozen=True)
class ContainerTask:
    """An archive that one worker lists."""

    file: IndexedFile
    limits: Limits


@dataclass(frozen=True)
class ContainerListing:
    """Members of an archive by folder, and what is wrong with it as a whole."""

    folders: list[Folder]
    problem: Rejected | None


def unpack(index: Index, workers: Workers, *, limits: Limits, seen: Callable[[int, int], None]) -> None:
    """Bring the index up to date with the members of every archive in it that is new or changed.

    An archive counts as done when all its members are in the index: one that was interrupted is gone through again,
    and only what is missing is read. `seen(archives, read)` is told how many archives are done and how many headers
    were read.
    """
    waiting = [file for file in index.files(kind="container") if _to_open(file)]
    read = 0
    for first in range(0, len(waiting), _CONTAINERS_AT_ONCE):
        tasks = [ContainerTask(file, limits) for file in waiting[first : first + _CONTAINERS_AT_ONCE]]
        listings = {}
        for done in workers.run(list_container, tasks, timeout_s=limits.container_seconds):
            failure = done.failure or Rejected(Reason.CONTAINER_BROKEN, "no answer")
            listings[done.task.file.path] = (done.task.file, done.result or ContainerListing([], failure))
        batches = itertools.chain.from_iterable(_batches(*one, index, limits) for one in listings.values())
        for count in index_headers(batches, index, workers, timeout_s=limits.container_seconds):
            read += count
            seen(first, read)
        index.put_files(_opened(file, listing.problem) for file, listing in listings.values())
    seen(len(waiting), read)


def list_container(task: ContainerTask) -> ContainerListing:
    """The members of one archive. Runs in a worker process."""
    folders: list[Folder] = []
    try:
        with open_source(_root(task.file.path), task.limits) as source:
            folders.extend(source.folders())
    except Rejected as rejected:
        return ContainerListing(folders, rejected)
    return ContainerListing(folders, None)


def _to_open(file: IndexedFile) -> bool:
    return not is_remote(file.path) and (file.reason is Reason.CONTAINER or file.reason in TRANSIENT_REASONS)


def _root(archive: Path) -> Path:
    return Path(f"{archive}{MEMBER}")


def _batches(file: IndexedFile, listing: ContainerListing, index: Index, limits: Limits) -> Iterator[FileBatch]:
    """Members to read, and a word in the index on those that are gone or refused."""
    fresh: list[tuple[Path, FileStamp]] = []
    for folder in listing.folders:
        fresh += [(folder.path / name, folder.files[name]) for name in to_read(folder, index, whole=True)]
        index.put_files(refused(folder, file.root))
    if listing.problem is None:
        _forget(index, file.path, [folder.path for folder in listing.folders])
    for start in range(0, len(fresh), _BATCH_MEMBERS):
        yield FileBatch(file.root, tuple(fresh[start : start + _BATCH_MEMBERS]), limits)


def _forget(index: Index, archive: Path, listed: Iterable[Path]) -> None:
    """Mark members of folders that the archive does not have any more."""
    for path in set(index.folders_under(_root(archive))) - set(listed):
        index.mark_vanished(path, list(index.known(path)))


def _opened(file: IndexedFile, problem: Rejected | None) -> IndexedFile:
    """The archive itself: no more left out, unless something is wrong with it."""
    if problem is None:
        return replace(file, kind="opened", reason=None, detail="")
    return replace(file, reason=problem.reason, detail=problem.detail)
