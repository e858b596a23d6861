"""Loads a planned scan: voxels, affine and label, all checked."""

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
    """A checked scan.

    Attributes:
        volume: Voxels in physical units and affine.
        label: Label on the grid of the volume, if the scan has one.
        label_problem: Why its label, or a part of it, is left out; None if nothing is.
        flags: What was noticed.
        trim: Which slices were left out; None if all are used.
    """

    volume: Volume
    label: Volume | None
    label_problem: Rejected | None
    flags: tuple[Flag, ...]
    trim: Trim | None = None


def load_planned_scan(plan: LoadPlan, *, limits: Limits, min_slices: int = 1) -> LoadedScan:
    """Load and check a scan and its label.

    Args:
        plan: What to read.
        limits: Limits for files and geometry.
        min_slices: Smallest number of slices that may remain when damaged ones are left out.

    Raises:
        Rejected: The scan cannot be used. A problem of its label alone is returned instead.
    """
    if isinstance(plan, DicomLoadPlan):
        return _load_dicom(plan, limits, min_slices)
    with local_copies(plan, limits=limits) as local_plan:
        return _load_nifti(local_plan, limits)


def _load_dicom(plan: DicomLoadPlan, limits: Limits, min_slices: int) -> LoadedScan:
    with local_copies(replace(plan, labels=()), limits=limits) as local_plan:
        volume, flags, trim = read_dicom(local_plan, limits=limits, min_slices=min_slices)
    check_voxels(volume)
    label, problem, label_flags = read_label_objects(plan.labels, volume, limits=limits)
    return LoadedScan(volume, label, problem, (*flags, *label_flags), trim)


def _load_nifti(plan: NiftiLoadPlan, limits: Limits) -> LoadedScan:
    for file in (plan.image, *plan.voxels):
        file.check_unchanged()
    volume = read_volume(Path(plan.image.path), limits=limits)
    for file in (plan.image, *plan.voxels):
        file.check_unchanged()
    check_voxels(volume)
    label, problem = _label(plan, volume, limits)
    return LoadedScan(volume, label, problem, (Flag.F_LABEL_LEFT_OUT,) if problem else ())


def _label(plan: NiftiLoadPlan, volume: Volume, limits: Limits) -> tuple[Volume | None, Rejected | None]:
    """(label, why it is left out); a problem of the label never rejects the scan."""
    if plan.label is None:
        return None, None
    try:
        plan.label.check_unchanged()
        return checked_label(read_volume(Path(plan.label.path), limits=limits), volume), None
    except Rejected as rejected:
        if rejected.reason in (Reason.LABEL_GRID, Reason.LABEL_NOT_INTEGER):
            return None, rejected
        return None, Rejected(Reason.LABEL_UNREADABLE, f"{rejected.detail} ({rejected.reason})")
