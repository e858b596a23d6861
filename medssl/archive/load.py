"""A scan's voxels and affine: of a planned scan during ingest, or of one file or folder that somebody names."""

from dataclasses import dataclass
from pathlib import Path

from medssl.archive.limits import Limits
from medssl.archive.nifti import load_nifti, read_volume
from medssl.archive.quality import check_voxels, checked_label
from medssl.archive.reasons import Flag, Reason
from medssl.archive.rejection import Rejected
from medssl.archive.sources import NiftiSource
from medssl.errors import DataError
from medssl.geometry import Volume


@dataclass(frozen=True)
class Loaded:
    """A checked scan. label_problem: why its label file is not used, if it has one that is not."""

    volume: Volume
    label: Volume | None
    label_problem: Rejected | None
    flags: tuple[Flag, ...]


def load_source(source: NiftiSource, *, limits: Limits) -> Loaded:
    """The scan of a source, its voxels and label checked. Raises Rejected."""
    source.image.check_unchanged()
    volume = read_volume(Path(source.image.path), limits=limits)
    source.image.check_unchanged()
    check_voxels(volume)
    label, problem = _label(source, volume, limits)
    return Loaded(volume, label, problem, (Flag.F_LABEL_LEFT_OUT,) if problem else ())


def load_scan(path: Path) -> Volume:
    """The scan in a NIfTI file, or in a folder with exactly one DICOM scan.

    Voxels (X, Y, Z) in physical units. Raises DataError with what is wrong.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist. Name a NIfTI file or a folder with one DICOM series.")
    if path.is_file():
        return load_nifti(path)
    raise DataError(f"{path} holds no scan. Name a NIfTI file or a folder with one DICOM series.")


def _label(source: NiftiSource, volume: Volume, limits: Limits) -> tuple[Volume | None, Rejected | None]:
    """The label, or why it cannot be used; a label never costs the scan."""
    if source.label is None:
        return None, None
    try:
        source.label.check_unchanged()
        return checked_label(read_volume(Path(source.label.path), limits=limits), volume), None
    except Rejected as rejected:
        if rejected.reason in (Reason.LABEL_GRID, Reason.LABEL_NOT_INTEGER):
            return None, rejected
        return None, Rejected(Reason.LABEL_UNREADABLE, f"{rejected.finding} ({rejected.reason})")
