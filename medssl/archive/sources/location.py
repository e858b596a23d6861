"""Where a file lies: on disk, in a zip or tar file, or on a server.

Every file of the archive has a path, because labels, patients and series are matched by folder and file name wherever
the files lie. Four forms exist, and only this module reads and writes them:

    /data/a.nii.gz                      a file on disk
    /data/2019.zip::/p1/IM0001          a member of a container (zip, tar or compressed file)
    s3:/bucket/p1/IM0001                an object: `s3://bucket/p1/IM0001`
    dicomweb+https:/host/dicom-web/...  an instance on a server
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

_MEMBER_MARK = "::"
_DICOMWEB_SCHEMES = ("dicomweb+http", "dicomweb+https")
# One slash where pathlib has merged two. A scheme has two letters or more: C:/data is a Windows drive.
_URL = re.compile(r"([^/]{2,}):/{1,2}([^/]+)/*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Location:
    """An address on an object store or a DICOMweb server.

    Attributes:
        scheme: such as s3, gs, memory or dicomweb+https.
        server: the bucket of an object store; the host, with its port, of a DICOMweb server.
        key: path below the server, one entry per slash-separated part.
    """

    scheme: str
    server: str
    key: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> "Location | None":
        """The location that a URL, or the path made of one, stands for; None for a path on disk."""
        match = _URL.fullmatch(os.fspath(text))
        if match is None:
            return None
        return cls(match[1], match[2], tuple(part for part in match[3].split("/") if part))

    @classmethod
    def of(cls, path: Path) -> "Location":
        """The location of a path for which `is_remote` holds. Raises ValueError for any other."""
        location = cls.parse(path)
        if location is None:
            raise ValueError(f"{path} is on disk")
        return location

    @property
    def url(self) -> str:
        """As the user writes it: `s3://bucket/p1/IM0001`."""
        return f"{self.scheme}://{'/'.join((self.server, *self.key))}"

    @property
    def path(self) -> Path:
        """As the index holds it."""
        return Path(f"{self.scheme}:", self.server, *self.key)

    @property
    def is_dicomweb(self) -> bool:
        """Whether it is on a DICOMweb server, which lists neither sizes nor times of its instances."""
        return self.scheme in _DICOMWEB_SCHEMES

    @property
    def root(self) -> "Location":
        """The bucket or the host."""
        return replace(self, key=())


def is_remote(path: Path) -> bool:
    """Whether a source, or a file of one, is on a server."""
    return Location.parse(path) is not None


def is_on_disk(path: Path) -> bool:
    """Whether the system can open a file itself: it is neither on a server nor in a container."""
    return container_of(path) is None and not is_remote(path)


def container_of(path: Path) -> Path | None:
    """The zip, tar or compressed file that a member lies in; None for a file that is in none."""
    container, mark, _ = os.fspath(path).partition(f"{_MEMBER_MARK}/")
    if not mark and not container.endswith(_MEMBER_MARK):
        return None
    container = container.removesuffix(_MEMBER_MARK)
    # A real folder may have such a name. A folder and a file of one name cannot both exist.
    return None if Path(container + _MEMBER_MARK).is_dir() else Path(container)


def members_root(container: Path) -> Path:
    """The folder that a container's members lie in."""
    return Path(f"{container}{_MEMBER_MARK}")


def member_path(container: Path, name: str) -> Path:
    """The path of a member."""
    return members_root(container) / name
