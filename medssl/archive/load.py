"""A scan's voxels and affine: of a planned scan during ingest, or of one file or folder that somebody names."""

from dataclasses import dataclass, replace
from pathlib import Path

from medssl.archive.at_hand import at_hand
from medssl.archive.discover import walk
from medssl.archive.identity import passing_key
from medssl.archive.label_objects import read_label_objects
from medssl.archive.limits import Limits
from medssl.archive.nifti import read_volume
from medssl.archive.quality import check_voxels, checked_label
from medssl.archive.reasons import Flag, Reason
from medssl.archive.rejection import Rejected
from medssl.archive.sources import DicomSource, NiftiSource, Source
from medssl.archive.trim import Trim
from medssl.archive.volume import read_dicom
from medssl.errors import DataError
from medssl.geometry import Volume

_MOST_FILES = 100_000


@dataclass(frozen=True)
class Loaded:
    """A checked scan. label_problem: why its label, or a part of it, is not used, where it is not. trim: what it lost
    on the way, if it did.
    """

    volume: Volume
    label: Volume | None
    label_problem: Rejected | None
    flags: tuple[Flag, ...]
    trim: Trim | None = None


def load_source(source: Source, *, limits: Limits, min_slices: int = 1) -> Loaded:
    """The scan of a source, its voxels and label checked. Raises Rejected.

    min_slices: fewest that may be left where slices have to be left out.
    """
    if isinstance(source, DicomSource):
        return _load_dicom(source, limits, min_slices)
    with at_hand(source, limits=limits) as near:
        return _load_nifti(near, limits)


def _load_dicom(source: DicomSource, limits: Limits, min_slices: int) -> Loaded:
    with at_hand(replace(source, labels=()), limits=limits) as near:
        volume, flags, trim = read_dicom(near, limits=limits, min_slices=min_slices)
    check_voxels(volume)
    label, problem, noticed = read_label_objects(source.labels, volume, limits=limits)
    return Loaded(volume, label, problem, (*flags, *noticed), trim)


def _load_nifti(source: NiftiSource, limits: Limits) -> Loaded:
    for file in (source.image, *source.voxels):
        file.check_unchanged()
    volume = read_volume(Path(source.image.path), limits=limits)
    for file in (source.image, *source.voxels):
        file.check_unchanged()
    check_voxels(volume)
    label, problem = _label(source, volume, limits)
    return Loaded(volume, label, problem, (Flag.F_LABEL_LEFT_OUT,) if problem else ())


def load_scan(path: Path) -> Volume:
    """The scan in a NIfTI file, or in a file or folder with exactly one DICOM scan.

    Voxels (X, Y, Z) in physical units. Raises DataError with what is wrong.
    """
    from medssl.archive.assemble import Rules
    from medssl.archive.plan_dicom import plan_series
    from medssl.archive.scan import scan_file
    from medssl.archive.sources import parse_source

    if not path.exists():
        raise DataError(f"{path} does not exist. Name a NIfTI file or a folder with one DICOM series.")
    limits = Limits()
    try:
        files = [
            scan_file(folder.path / name, path, stamp, limits=limits)
            for folder in walk(path)
            for name, stamp in sorted(folder.files.items())[:_MOST_FILES]
        ]
        if path.is_file() and files[0].kind == "nifti":
            return _checked(read_volume(path, limits=limits))
        series = sorted({file.series for file in files if file.series and file.kind == "dicom"})
        rules = Rules(min_slices=1, include_derived=True, volumes_per_series=2)
        planned = [
            scan
            for one in series
            for scan in plan_series(one, [f for f in files if f.series == one], passing_key(), rules)
        ]
        sources = [scan.source for scan in planned if scan.source is not None]
        if len(sources) != 1:
            why = next((file for file in files if file.reason), None) if path.is_file() else None
            reason = f" ({why.reason}: {why.finding})" if why else "".join(f" ({s.finding})" for s in planned[:1])
            raise DataError(
                f"{path} holds {len(sources)} scans{reason}. Name a NIfTI file or a folder with exactly one DICOM scan."
            )
        source = parse_source(sources[0])
        loaded = load_source(source, limits=limits)
        # Training can do with a part of a scan; who names one wants all of it, or to know.
        if isinstance(source, DicomSource) and loaded.trim and loaded.volume.shape[2] < len(source.slices):
            raise Rejected(loaded.trim.reason, loaded.trim.finding)
        return loaded.volume
    except Rejected as rejected:
        raise rejected.about(path) from rejected


def _checked(volume: Volume) -> Volume:
    check_voxels(volume)
    return volume


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
