"""What must be read for one scan, as it lies in the private index."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from medssl.archive.discover import Stamp
from medssl.archive.reasons import Reason
from medssl.archive.rejection import Rejected


@dataclass(frozen=True)
class SourceFile:
    """A file as it was when its header was read."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, stamp: Stamp) -> "SourceFile":
        """A file with its stamp."""
        return cls(os.fspath(path), stamp.size, stamp.mtime_ns)

    def check_unchanged(self) -> None:
        """Raise Rejected with IN_FLUX when the file is not as it was, with IO_ERROR when it is gone."""
        try:
            facts = os.stat(self.path)
        except OSError as error:
            raise Rejected(Reason.IO_ERROR, f"it cannot be read any more ({error.strerror})") from error
        if (facts.st_size, facts.st_mtime_ns) != (self.size, self.mtime_ns):
            raise Rejected(Reason.IN_FLUX, "the file has changed since its header was read")


@dataclass(frozen=True)
class NiftiSource:
    """A NIfTI scan and its label, if it has one."""

    image: SourceFile
    label: SourceFile | None


def source_json(source: NiftiSource) -> str:
    """A source as text."""
    return json.dumps({"nifti": asdict(source)}, sort_keys=True)


def parse_source(text: str) -> NiftiSource:
    """The source that `source_json` wrote."""
    facts = json.loads(text)["nifti"]
    label = facts["label"]
    return NiftiSource(SourceFile(**facts["image"]), SourceFile(**label) if label else None)
