"""A scan's voxels and affine: of a planned scan during ingest, or of one file or folder that somebody names."""

from dataclasses import dataclass, replace
from pathlib import Path

from medssl.archive.checks import check_voxels, checked_label
from medssl.archive.index.load_plan import DicomLoadPlan, LoadPlan, NiftiLoadPlan
from medssl.archive.index.planned_scan import Trim
from medssl.archive.limits import Limits
from medssl.archive.nifti.read import read_volume
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.dicom import read_dicom
from medssl.archive.voxels.labels import read_label_objects
from medssl.archive.voxels.local_copies import local_copies
from medssl.cohort.reasons import Flag, Reason
from medssl.geometry import Volume


@dataclass(frozen=True)
class LoadedScan:
    """A checked scan. label_problem: why its label, or a part of it, is not used, where it is not. trim: what it lost
    on the way, if it did.
    """

    volume: Volume
    label: Volume | None
    label_problem: Rejected | None
    flags: tuple[Flag, ...]
    trim: Trim | None = None


def load_planned_scan(source: LoadPlan, *, limits: Limits, min_slices: int = 1) -> LoadedScan:
    """The scan of a source, its voxels and label checked. Raises Rejected.

    min_slices: fewest that may be left where slices have to be left out.
    """
    if isinstance(source, DicomLoadPlan):
        return _load_dicom(source, limits, min_slices)
    with local_copies(source, limits=limits) as near:
        return _load_nifti(near, limits)


def _load_dicom(source: DicomLoadPlan, limits: Limits, min_slices: int) -> LoadedScan:
    with local_copies(replace(source, labels=()), limits=limits) as near:
        volume, flags, trim = read_dicom(near, limits=limits, min_slices=min_slices)
    check_voxels(volume)
    label, problem, noticed = read_label_objects(source.labels, volume, limits=limits)
    return LoadedScan(volume, label, problem, (*flags, *noticed), trim)


def _load_nifti(source: NiftiLoadPlan, limits: Limits) -> LoadedScan:
    for file in (source.image, *source.voxels):
        file.check_unchanged()
    volume = read_volume(Path(source.image.path), limits=limits)
    for file in (source.image, *source.voxels):
        file.check_unchanged()
    check_voxels(volume)
    label, problem = _label(source, volume, limits)
    return LoadedScan(volume, label, problem, (Flag.F_LABEL_LEFT_OUT,) if problem else ())


def _label(source: NiftiLoadPlan, volume: Volume, limits: Limits) -> tuple[Volume | None, Rejected | None]:
    """The label, or why it cannot be used; a label never costs the scan."""
    if source.label is None:
        return None, None
    try:
        source.label.check_unchanged()
        return checked_label(read_volume(Path(source.label.path), limits=limits), volume), None
    except Rejected as rejected:
        if rejected.reason in (Reason.LABEL_GRID, Reason.LABEL_NOT_INTEGER):
            return None, rejected
        return None, Rejected(Reason.LABEL_UNREADABLE, f"{rejected.detail} ({rejected.reason})")
