"""Where the files of an archive lie, and the four ways to get at them.

Everything ingest does with a source is: list its files with the stamp by which a change is seen (`folders`), read the
first bytes of some of them (`starts`), copy whole files of one scan beside the work (`copies`). A folder on disk does
that with the system's own calls (discover.py, scan.py); zip and tar files, object stores and DICOMweb servers do it
through `Source`. The way the data takes:

    folders() -> what is new or changed (collect.py, remote.py, unpack.py) -> starts() -> header records (scan.py)
    a planned scan -> copies() into files without a name (local_copies.py) -> the same readers as for a file on disk

A place is a path in every case, so that labels, patients and series are matched by folder and name alike:

    /data/a.nii.gz                      a file
    /data/2019.zip::/p1/IM0001          a member of an archive
    s3:/bucket/p1/IM0001                an object (`s3://bucket/p1/IM0001`)
    dicomweb+https:/host/dicom-web/...  an instance of a server
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from medssl.archive.sources.walk import FileStamp, Folder, is_remote

MEMBER = "::"
DICOMWEB = ("dicomweb+http:", "dicomweb+https:")
# Stands for the size of a file where a server does not tell it.
UNKNOWN_BYTES = 1 << 62
# Gives the first n bytes of a file, fewer only where it ends. Raises Rejected.
HeadReader: TypeAlias = Callable[[int], bytes]


@dataclass(frozen=True)
class FileContent:
    """A whole file, piece by piece. stamp: as it is now."""

    path: Path
    stamp: FileStamp
    chunks: Iterator[bytes]


class FileSource(Protocol):
    """Files that are no files on disk. Raises Rejected for what is wrong with the source or one file; DataError where
    a server is gone, which ends the ingest until it is run again.
    """

    def folders(self) -> Iterator[Folder]:
        """Every file, folder by folder; what can be told from the listing to be left out is told there."""

    def starts(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """Those files, each once, in the order that is cheapest here. A `Start` serves until the next one is asked
        for.
        """

    def copies(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """Those files whole, in the order that is cheapest here."""


def has_no_size(path: Path) -> bool:
    """Whether a place is on a server that tells neither size nor time of its files."""
    return path.parts[0] in DICOMWEB


def is_plain(path: Path) -> bool:
    """Whether a place is a file that the system opens."""
    return container_of(path) is None and not is_remote(path)


def container_of(path: Path) -> Path | None:
    """The archive that a member lies in."""
    outer, found, _ = os.fspath(path).partition(f"{MEMBER}/")
    if not found and not outer.endswith(MEMBER):
        return None
    archive = Path(outer.removesuffix(MEMBER))
    # A folder may be called that way; a folder and a file of one name cannot both be there.
    return None if Path(archive.parent, archive.name + MEMBER).is_dir() else archive


def member_path(archive: Path, member: str) -> Path:
    """The place of a member."""
    return Path(f"{archive}{MEMBER}/{member}")


def url_of(path: Path) -> str:
    """The URL of a place on a server."""
    scheme, *rest = path.parts
    return f"{scheme}//{'/'.join(rest)}"
