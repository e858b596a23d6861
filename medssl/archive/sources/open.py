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

from contextlib import AbstractContextManager
from pathlib import Path

from medssl.archive.limits import Limits
from medssl.archive.sources.source import DICOMWEB, FileSource, container_of, is_plain
from medssl.archive.sources.walk import is_remote
from medssl.errors import UsageError

_SMALL_BYTES = 1 << 24


def open_source(path: Path, limits: Limits) -> AbstractContextManager[FileSource]:
    """The source that a place lies in, opened. Raises Rejected, and UsageError where an extra is not installed."""
    archive = container_of(path)
    if archive is not None:
        from medssl.archive.sources.compressed import open_container

        return open_container(archive, limits)
    if path.parts[0] in DICOMWEB:
        from medssl.archive.sources.dicomweb import open_server

        return open_server(path, limits)
    if is_remote(path):
        from medssl.archive.sources.object_store import open_store

        return open_store(path)
    raise UsageError(f"{path} is a file on disk. Read it directly.")


def read_small(path: Path) -> bytes:
    """The content of a small file, wherever it lies. Raises OSError, or Rejected, which is a DataError too."""
    if is_plain(path):
        with path.open("rb") as file:
            return file.read(_SMALL_BYTES)
    with open_source(path, Limits()) as source:
        return next(read(_SMALL_BYTES) for _, read in source.starts([path]))
