"""A scan's voxels and affine: of a planned scan during ingest, or of one file or folder that somebody names."""

from pathlib import Path

from medssl.archive.checks import check_voxels
from medssl.archive.index.load_plan import DicomLoadPlan
from medssl.archive.limits import Limits
from medssl.archive.nifti.read import read_volume
from medssl.archive.privacy.pseudonyms import ephemeral_pseudonyms
from medssl.archive.rejection import Rejected
from medssl.archive.sources.walk import walk
from medssl.archive.voxels.scan import load_planned_scan
from medssl.errors import DataError
from medssl.geometry import Volume

_MAX_FILES = 100_000


def load_scan(path: Path) -> Volume:
    """The scan in a NIfTI file, or in a file or folder with exactly one DICOM scan.

    Voxels (X, Y, Z) in physical units. Raises DataError with what is wrong.
    """
    from medssl.archive.index.load_plan import parse_source
    from medssl.archive.plan.dicom import plan_series
    from medssl.archive.scan.recognise import scan_file
    from medssl.archive.series.assemble import Rules

    if not path.exists():
        raise DataError(f"{path} does not exist. Name a NIfTI file or a folder with one DICOM series.")
    limits = Limits()
    try:
        files = [
            scan_file(folder.path / name, path, stamp, limits=limits)
            for folder in walk(path)
            for name, stamp in sorted(folder.files.items())[:_MAX_FILES]
        ]
        if path.is_file() and files[0].kind == "nifti":
            return _checked(read_volume(path, limits=limits))
        series = sorted({file.series for file in files if file.series and file.kind == "dicom"})
        rules = Rules(min_slices=1, include_derived=True, volumes_per_series=2)
        planned = [
            scan
            for one in series
            for scan in plan_series(one, [f for f in files if f.series == one], ephemeral_pseudonyms(), rules)
        ]
        sources = [scan.source for scan in planned if scan.source is not None]
        if len(sources) != 1:
            why = next((file for file in files if file.reason), None) if path.is_file() else None
            reason = f" ({why.reason}: {why.detail})" if why else "".join(f" ({s.detail})" for s in planned[:1])
            raise DataError(
                f"{path} holds {len(sources)} scans{reason}. Name a NIfTI file or a folder with exactly one DICOM scan."
            )
        source = parse_source(sources[0])
        loaded = load_planned_scan(source, limits=limits)
        # Training can do with a part of a scan; who names one wants all of it, or to know.
        if isinstance(source, DicomLoadPlan) and loaded.trim and loaded.volume.shape[2] < len(source.slices):
            raise Rejected(loaded.trim.reason, loaded.trim.detail)
        return loaded.volume
    except Rejected as rejected:
        raise rejected.about(path) from rejected


def _checked(volume: Volume) -> Volume:
    check_voxels(volume)
    return volume
