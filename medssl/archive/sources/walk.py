"""Walking the sources: every file once, links kept inside their root."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason
from medssl.errors import DataError, UsageError


class FileStamp(NamedTuple):
    """How a file is recognised as unchanged."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Folder:
    """The files directly in one folder, by name; `unreadable` when more may be there than was listed, `problem` when
    it cannot be listed, `leaving` links that lead out, `refused` files and members of archives that are not read.
    """

    path: Path
    files: dict[str, FileStamp]
    unreadable: bool = False
    leaving: tuple[str, ...] = ()
    refused: Mapping[str, Rejected] = field(default_factory=dict)
    problem: Rejected | None = None


def checked_sources(sources: Sequence[Path]) -> tuple[Path, ...]:
    """Absolute paths of the sources, none inside another; those on servers as they are.

    Raises UsageError for a path that does not exist.
    """
    if not sources:
        raise UsageError("no source is named. Give at least one folder or file with scans.")
    roots: list[Path] = []
    for source in sources:
        if is_remote(source):
            roots.append(source)
            continue
        if not source.exists():
            raise UsageError(f"{source} does not exist. Check the path of the source.")
        roots.append(source.resolve())
    distinct = sorted(set(roots))
    return tuple(root for root in distinct if not any(other in root.parents for other in distinct))


def is_remote(path: Path) -> bool:
    """Whether a source, or a file of one, is on a server. `s3://bucket/key` is `s3:/bucket/key` as a path."""
    return not path.is_absolute() and len(path.parts) > 1 and path.parts[0].endswith(":") and len(path.parts[0]) > 2


def check_not_empty(roots: Sequence[Path], *, follow_symlinks: bool) -> None:
    """Raise DataError when no file at all lies under the sources. A server tells when it is asked."""
    if any(map(is_remote, roots)):
        return
    if not any(folder.files for root in roots for folder in walk(root, follow_symlinks=follow_symlinks)):
        named = ", ".join(map(str, roots))
        raise DataError(
            f"{named} holds no file. Check the path, its permissions, and whether the disk with the archive is mounted."
        )


def walk(root: Path, *, follow_symlinks: bool = False, without: Path | None = None) -> Iterator[Folder]:
    """Folders under `root` in sorted order, each with its files; `root` may be a single file.

    Links are not followed unless asked; then each folder is visited once, and none outside `root`. `without` is a
    folder that
    is left out: the cohort that is being written.
    """
    if root.is_file():
        yield Folder(root.parent, {root.name: _stamp(root.stat())})
        return
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        path = pending.pop()
        if path == without:
            continue
        if follow_symlinks and not _first_visit(path, seen):
            continue
        folder, below = _list(path, root, follow_symlinks)
        pending.extend(sorted(below, reverse=True))
        yield folder


def _list(path: Path, root: Path, follow: bool) -> tuple[Folder, list[Path]]:
    files: dict[str, FileStamp] = {}
    below: list[Path] = []
    leaving: list[str] = []
    refused: dict[str, Rejected] = {}
    moving, problem = False, None
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    if entry.is_symlink() and not (follow and _inside(entry.path, root)):
                        if follow:
                            leaving.append(entry.name)
                    elif entry.is_dir(follow_symlinks=follow):
                        below.append(path / entry.name)
                    elif entry.is_file(follow_symlinks=follow):
                        files[entry.name] = _stamp(entry.stat(follow_symlinks=follow))
                except FileNotFoundError:  # renamed or removed since it was listed; its new name may not be listed
                    moving = True
                except OSError as error:
                    refused[entry.name] = Rejected(Reason.IO_ERROR, f"it cannot be read ({error.strerror})")
    except FileNotFoundError:
        moving = True
    except OSError as error:
        problem = Rejected(Reason.IO_ERROR, f"the folder cannot be listed ({error.strerror})")
    unreadable = moving or problem is not None
    return Folder(path, files, unreadable, tuple(sorted(leaving)), refused, problem), below


def _inside(path: str, root: Path) -> bool:
    try:
        target = Path(path).resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target == root or root in target.parents


def _first_visit(path: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        facts = path.stat()
    except OSError:  # said where it is listed
        return True
    key = (facts.st_dev, facts.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _stamp(facts: os.stat_result) -> FileStamp:
    return FileStamp(facts.st_size, facts.st_mtime_ns)
