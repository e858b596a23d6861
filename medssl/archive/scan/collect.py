"""Sources to index: only what is new or changed since the last run is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medssl.archive.index.database import TRANSIENT_REASONS, Index
from medssl.archive.index.entries import IndexedFile
from medssl.archive.index.missing import forget_below
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.scan.recognise import FileBatch, read_headers, rejected_file
from medssl.archive.sources.location import is_remote
from medssl.archive.sources.open import open_source
from medssl.archive.sources.walk import FileStamp, Folder, walk
from medssl.archive.workers.task import Workers
from medssl.cohort.reasons import Reason

BATCH_FILES = 64
_NO_STAMP = FileStamp(0, 0)


def collect(
    roots: Sequence[Path],
    index: Index,
    workers: Workers,
    *,
    limits: Limits,
    follow_symlinks: bool,
    exclude: Path | None,
    on_progress: Callable[[int, int], None],
) -> int:
    """Bring the index up to date with the files under `roots`; returns how many files there are.

    Args:
        roots: Absolute paths of folders and files, or paths of locations on servers.
        index: Of the cohort.
        workers: Read the headers.
        limits: Of one file.
        follow_symlinks: Whether links are followed inside their root.
        exclude: A folder that is left out: the cohort that is being written.
        on_progress: Called with the number of files listed and of headers read so far.
    """
    n_files = 0

    def batches(roots: Sequence[Path]) -> Iterator[FileBatch]:
        nonlocal n_files
        for root in roots:
            home = root.parent if root.is_file() else root
            pending: list[tuple[Path, FileStamp]] = []
            listed: set[Path] = set()
            readable = True
            for folder in _folders(root, follow_symlinks, exclude, limits):
                n_files += len(folder.files)
                if is_remote(root):
                    listed.add(folder.path)
                readable = readable and (folder.problem is None or folder.path != root)
                index.put_files(_outside_links(folder, index, home))
                index.put_files(rejected_files(folder, home))
                names = names_to_read(folder, index, complete=not root.is_file())
                pending += [(folder.path / name, folder.files[name]) for name in names]
                while len(pending) >= BATCH_FILES:
                    yield FileBatch(home, tuple(pending[:BATCH_FILES]), limits)
                    pending = pending[BATCH_FILES:]
            if pending:
                yield FileBatch(home, tuple(pending), limits)
            if not root.is_file():
                index.mark_vanished(root.parent, [root.name] if readable else [])
                forget_below(index, root, listed)

    n_read = 0
    remote = [root for root in roots if is_remote(root)]
    local = [root for root in roots if not is_remote(root)]
    for group, timeout_s in ((local, limits.header_seconds), (remote, limits.container_seconds)):
        for count in index_headers(batches(group), index, workers, timeout_s=timeout_s):
            n_read += count
            on_progress(n_files, n_read)
    on_progress(n_files, n_read)
    return n_files


def _folders(root: Path, follow_symlinks: bool, exclude: Path | None, limits: Limits) -> Iterator[Folder]:
    """Folders of a source, wherever it is."""
    if not is_remote(root):
        yield from walk(root, follow_symlinks=follow_symlinks, exclude=exclude)
        return
    with open_source(root, limits) as source:
        yield from source.folders()


def index_headers(batches: Iterable[FileBatch], index: Index, workers: Workers, *, timeout_s: float) -> Iterator[int]:
    """Read the headers of the batches' files into the index; yields the number of files each time some are done."""
    for result in workers.run(read_headers, batches, timeout_s=timeout_s):
        files = result.result if result.result is not None else _one_by_one(result.task, workers, timeout_s)
        index.put_files(files)
        yield len(files)


def names_to_read(folder: Folder, index: Index, *, complete: bool) -> list[str]:
    """Names of files that are new, changed, or worth another attempt.

    Files of earlier runs that are gone are marked in the index where the listing is `complete`.
    """
    earlier = index.known_files(folder.path)
    if complete and not folder.incomplete:
        listed = (folder.files, folder.outside_links, folder.rejected)
        vanished = [name for name in earlier if not any(name in names for names in listed)]
        if vanished:
            index.mark_vanished(folder.path, vanished)
    names = []
    for name in sorted(folder.files):
        stamp, reason = earlier.get(name, (None, None))
        if stamp != folder.files[name] or reason in TRANSIENT_REASONS:
            names.append(name)
    return names


def _outside_links(folder: Folder, index: Index, home: Path) -> list[IndexedFile]:
    """Links that lead out of their source, unless the index has them already."""
    if not folder.outside_links:
        return []
    earlier = index.known_files(folder.path)
    problem = Rejected(Reason.SYMLINK_OUTSIDE_ROOT, "the link leads out of its source")
    return [
        replace(rejected_file(folder.path / name, home, _NO_STAMP, problem), kind="other")
        for name in folder.outside_links
        if name not in earlier
    ]


def rejected_files(folder: Folder, home: Path) -> list[IndexedFile]:
    """Files that the listing alone rules out, and the folder itself where it cannot be listed.

    The folder is entered as a name in the folder above, whose next listing removes it.
    """
    files = [rejected_file(folder.path / name, home, _NO_STAMP, problem) for name, problem in folder.rejected.items()]
    if folder.problem is not None:
        files.append(replace(rejected_file(folder.path, home, _NO_STAMP, folder.problem), kind="folder"))
    return files


def _one_by_one(batch: FileBatch, workers: Workers, timeout_s: float) -> list[IndexedFile]:
    """A batch whose worker died, read file by file, so that only the culprit is left out."""
    files: list[IndexedFile] = []
    singles = (FileBatch(batch.root, (file,), batch.limits) for file in batch.files)
    for single in workers.run(read_headers, singles, timeout_s=timeout_s):
        if single.result is not None:
            files += single.result
            continue
        path, stamp = single.task.files[0]
        detail = single.failure.detail if single.failure else "no answer"
        crash = Rejected(Reason.SCAN_CRASH, detail)
        files.append(replace(rejected_file(path, batch.root, stamp, crash), kind="other"))
    return files
