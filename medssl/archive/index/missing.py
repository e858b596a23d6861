"""Files that earlier runs saw and that are gone: marked in the index, so that nothing is planned from a dead path.

Gone means that the system says so. A folder that cannot be read, and a server that was not asked, keep their files.
"""

import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path

from medssl.archive.index.database import Index
from medssl.archive.sources.location import container_of, is_remote


def forget_below(index: Index, root: Path, listed: Collection[Path]) -> None:
    """After a source was walked: mark the files of folders and containers below it that are gone.

    listed: folders that a server told of; those on disk are looked at.
    """
    for folder in index.folders_under(root):
        if folder not in listed if is_remote(root) else not _is_there(folder):
            index.mark_vanished(folder, list(index.known_files(folder)))


def forget_elsewhere(index: Index, roots: Sequence[Path]) -> None:
    """The same for files outside of the sources that were walked, as far as they are about to be planned: an archive
    that was moved, or mounted elsewhere, lies where nobody looks any more.
    """
    walked = {root for root in roots if not root.is_file()}
    for folder in index.folders_to_plan():
        if is_remote(folder) or not walked.isdisjoint((folder, *folder.parents)):
            continue
        names = list(index.known_files(folder))
        gone = _missing(folder, names) if _is_there(folder) else names
        if gone:
            index.mark_vanished(folder, gone)


def is_deserted(folder: Path) -> bool:
    """Whether a folder, or the archive that it is in, is gone or holds nothing, like the mount point of a disk that is
    not there.
    """
    if is_remote(folder):
        return False
    if not _is_there(folder):
        return True
    try:
        return container_of(folder) is None and not os.listdir(folder)
    except OSError:
        return False


def _missing(folder: Path, names: list[str]) -> list[str]:
    if container_of(folder) is not None:
        return []
    try:
        present = set(os.listdir(folder))
    except OSError:
        return []
    return [name for name in names if name not in present]


def _is_there(folder: Path) -> bool:
    container = container_of(folder)
    try:
        mode = os.stat(container or folder).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return stat.S_ISREG(mode) if container else stat.S_ISDIR(mode)
