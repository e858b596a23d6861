"""Zip, tar and compressed files that the header scan met: listed, and their members read like files of a folder."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.archive.index.database import TRANSIENT_REASONS, Index
from medssl.archive.index.entries import IndexedFile
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.scan.collect import index_headers, names_to_read, rejected_files
from medssl.archive.scan.recognise import FileBatch
from medssl.archive.sources.location import is_remote, members_root
from medssl.archive.sources.open import open_source
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.archive.workers.task import Workers
from medssl.cohort.reasons import Reason

# Containers whose members are read together; their listings are in memory.
_CONTAINERS_AT_ONCE = 64
# Large, because a compressed tar is read from its front for every batch.
_BATCH_MEMBERS = 4096


@dataclass(frozen=True)
class ContainerTask:
    """A container that one worker lists."""

    file: IndexedFile
    limits: Limits


@dataclass(frozen=True)
class ContainerListing:
    """Members of a container by folder. problem: what is wrong with it as a whole."""

    folders: list[Folder]
    problem: Rejected | None


def index_containers(
    index: Index, workers: Workers, *, limits: Limits, on_progress: Callable[[int, int], None]
) -> None:
    """Bring the index up to date with the members of every container in it that is new or changed.

    A container counts as done when all its members are in the index: after an interruption it is listed again, and
    only what is missing is read.

    Args:
        index: Of the cohort.
        workers: List the containers and read the headers.
        limits: Of one container and of one file.
        on_progress: Called with the number of containers done and of headers read so far.
    """
    waiting = [file for file in index.files(kind="container") if _to_open(file)]
    n_read = 0
    for first in range(0, len(waiting), _CONTAINERS_AT_ONCE):
        tasks = [ContainerTask(file, limits) for file in waiting[first : first + _CONTAINERS_AT_ONCE]]
        listings: list[tuple[IndexedFile, ContainerListing]] = []
        for result in workers.run(list_container, tasks, timeout_s=limits.container_seconds):
            failure = result.failure or Rejected(Reason.CONTAINER_BROKEN, "no answer")
            listings.append((result.task.file, result.result or ContainerListing([], failure)))
        batches = itertools.chain.from_iterable(_batches(file, listing, index, limits) for file, listing in listings)
        for count in index_headers(batches, index, workers, timeout_s=limits.container_seconds):
            n_read += count
            on_progress(first, n_read)
        index.put_files(_opened(file, listing.problem) for file, listing in listings)
    on_progress(len(waiting), n_read)


def list_container(task: ContainerTask) -> ContainerListing:
    """The members of one container. Runs in a worker process."""
    folders: list[Folder] = []
    try:
        with open_source(members_root(task.file.path), task.limits) as source:
            folders.extend(source.folders())
    except Rejected as rejected:
        return ContainerListing(folders, rejected)
    return ContainerListing(folders, None)


def _to_open(file: IndexedFile) -> bool:
    return not is_remote(file.path) and (file.reason is Reason.CONTAINER or file.reason in TRANSIENT_REASONS)


def _batches(file: IndexedFile, listing: ContainerListing, index: Index, limits: Limits) -> Iterator[FileBatch]:
    """Members to read. Those that are gone or rejected are entered in the index on the way."""
    pending: list[tuple[Path, FileStamp]] = []
    for folder in listing.folders:
        pending += [(folder.path / name, folder.files[name]) for name in names_to_read(folder, index, complete=True)]
        index.put_files(rejected_files(folder, file.root))
    if listing.problem is None:
        _mark_vanished(index, file.path, [folder.path for folder in listing.folders])
    for start in range(0, len(pending), _BATCH_MEMBERS):
        yield FileBatch(file.root, tuple(pending[start : start + _BATCH_MEMBERS]), limits)


def _mark_vanished(index: Index, container: Path, listed: Iterable[Path]) -> None:
    """Mark the members of folders that the container does not have any more."""
    for path in set(index.folders_under(members_root(container))) - set(listed):
        index.mark_vanished(path, list(index.known_files(path)))


def _opened(file: IndexedFile, problem: Rejected | None) -> IndexedFile:
    """The container itself: not left out any more, unless something is wrong with it."""
    if problem is None:
        return replace(file, kind="opened", reason=None, detail="")
    return replace(file, reason=problem.reason, detail=problem.detail)
