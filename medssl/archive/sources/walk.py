"""Walking folders on disk: every file once, links kept inside their root."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from medssl.archive.rejection import Rejected
from medssl.archive.sources.location import Location, is_remote
from medssl.cohort.reasons import Reason
from medssl.errors import DataError, UsageError


class FileStamp(NamedTuple):
    """By what a file counts as unchanged.

    Attributes:
        size: bytes; 0 where a server does not say it.
        mtime_ns: time of the last change on disk and in tar files; a checksum or digest elsewhere.
    """

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Folder:
    """The files directly in one folder, by name.

    Attributes:
        path: of the folder.
        files: the files that can be read.
        incomplete: whether more files may lie there than were listed.
        outside_links: names of links that lead out of the source.
        rejected: files and members of containers that are not read, with the reason.
        problem: why the folder itself cannot be listed.
    """

    path: Path
    files: dict[str, FileStamp]
    incomplete: bool = False
    outside_links: tuple[str, ...] = ()
    rejected: Mapping[str, Rejected] = field(default_factory=dict)
    problem: Rejected | None = None


def resolve_sources(sources: Sequence[str | Path]) -> tuple[Path, ...]:
    """Paths of the sources, absolute on disk, none inside another. Raises UsageError for a path that does not exist."""
    if not sources:
        raise UsageError("no source is named. Give at least one folder or file with scans.")
    roots: set[Path] = set()
    for source in sources:
        location, path = Location.parse(source), Path(source)
        if location is None and not path.exists():
            raise UsageError(f"{source} does not exist. Check the path of the source.")
        roots.add(path.resolve() if location is None else location.path)
    return tuple(root for root in sorted(roots) if roots.isdisjoint(root.parents))


def check_not_empty(roots: Sequence[Path], *, follow_symlinks: bool) -> None:
    """Raise DataError when no file at all lies under the sources. Servers are not asked: listing them shows it."""
    if any(map(is_remote, roots)):
        return
    if not any(folder.files for root in roots for folder in walk(root, follow_symlinks=follow_symlinks)):
        listed = ", ".join(map(str, roots))
        raise DataError(
            f"{listed} holds no file. Check the path, its permissions, and whether the disk with the archive is "
            "mounted."
        )


def walk(root: Path, *, follow_symlinks: bool = False, exclude: Path | None = None) -> Iterator[Folder]:
    """Folders under `root` in sorted order, each with its files.

    Args:
        root: A folder or a single file.
        follow_symlinks: Whether links are followed; then each folder is visited once, and none outside `root`.
        exclude: A folder that is left out: the cohort that is being written.
    """
    if root.is_file():
        yield Folder(root.parent, {root.name: _stamp(root.stat())})
        return
    visited: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        path = pending.pop()
        if path == exclude:
            continue
        if follow_symlinks and not _first_visit(path, visited):
            continue
        folder, subfolders = _list(path, root, follow_symlinks)
        pending.extend(sorted(subfolders, reverse=True))
        yield folder


def _list(path: Path, root: Path, follow: bool) -> tuple[Folder, list[Path]]:
    files: dict[str, FileStamp] = {}
    subfolders: list[Path] = []
    outside_links: list[str] = []
    rejected: dict[str, Rejected] = {}
    changing, problem = False, None
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    if entry.is_symlink() and not (follow and _leads_inside(entry.path, root)):
                        if follow:
                            outside_links.append(entry.name)
                    elif entry.is_dir(follow_symlinks=follow):
                        subfolders.append(path / entry.name)
                    elif entry.is_file(follow_symlinks=follow):
                        files[entry.name] = _stamp(entry.stat(follow_symlinks=follow))
                except FileNotFoundError:  # renamed or removed since it was listed; its new name may not be listed
                    changing = True
                except OSError as error:
                    rejected[entry.name] = Rejected(Reason.IO_ERROR, f"it cannot be read ({error.strerror})")
    except FileNotFoundError:
        changing = True
    except OSError as error:
        problem = Rejected(Reason.IO_ERROR, f"the folder cannot be listed ({error.strerror})")
    incomplete = changing or problem is not None
    return Folder(path, files, incomplete, tuple(sorted(outside_links)), rejected, problem), subfolders


def _leads_inside(link: str, root: Path) -> bool:
    try:
        target = Path(link).resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target == root or root in target.parents


def _first_visit(path: Path, visited: set[tuple[int, int]]) -> bool:
    try:
        status = path.stat()
    except OSError:  # listing the folder reports it
        return True
    key = (status.st_dev, status.st_ino)
    if key in visited:
        return False
    visited.add(key)
    return True


def _stamp(status: os.stat_result) -> FileStamp:
    return FileStamp(status.st_size, status.st_mtime_ns)
