"""What every source of files offers, wherever they lie.

Ingest does three things with a source: it lists the files with the stamp by which a change shows (`folders`), reads
the first bytes of some of them (`headers`), and copies whole files of one scan next to the work (`contents`). A folder
on disk does so with system calls (walk.py and scan/recognise.py); containers, object stores and DICOMweb servers do it
through `FileSource`. The data flows like this:

    folders() -> new and changed files (scan/collect.py, scan/containers.py) -> headers() -> records (scan/recognise.py)
    a planned scan -> contents() -> unnamed local files (voxels/local_copies.py) -> the readers of files on disk
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from medssl.archive.sources.walk import FileStamp, Folder

# Stands for the size of a file on a server that does not say it.
UNKNOWN_BYTES = 1 << 62
# Returns the first n bytes of a file, fewer only where the file is shorter. Raises Rejected.
HeadReader: TypeAlias = Callable[[int], bytes]


@dataclass(frozen=True)
class FileContent:
    """A whole file in chunks, with its stamp at the time of reading."""

    path: Path
    stamp: FileStamp
    chunks: Iterator[bytes]


class FileSource(Protocol):
    """Files that the system cannot open itself.

    Raises Rejected for what is wrong with the source or with one file; DataError where a server is gone, which ends
    the ingest until it is run again.
    """

    def folders(self) -> Iterator[Folder]:
        """Every file, folder by folder. Files that the listing alone rules out are among the folder's `rejected`."""

    def headers(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """Each file once, in the order that is cheapest here. A reader is valid until the next one is asked for."""

    def contents(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """Each file once and whole, in the order that is cheapest here."""
