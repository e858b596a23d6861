"""The one scan in a file or folder that somebody names, without a cohort."""

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

    Voxels (X, Y, Z) are in physical units.

    Raises:
        DataError: for anything else, with the reason.
    """
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
            volume = read_volume(path, limits=limits)
            check_voxels(volume)
            return volume
        series = sorted({file.series for file in files if file.series and file.kind == "dicom"})
        rules = Rules(min_slices=1, include_derived=True, volumes_per_series=2)
        planned = [
            scan
            for key in series
            for scan in plan_series(key, [file for file in files if file.series == key], ephemeral_pseudonyms(), rules)
        ]
        plans = [scan.load_plan for scan in planned if scan.load_plan is not None]
        if len(plans) != 1:
            rejected_file = next((file for file in files if file.reason), None) if path.is_file() else None
            if rejected_file:
                explanation = f" ({rejected_file.reason}: {rejected_file.detail})"
            else:
                explanation = "".join(f" ({scan.detail})" for scan in planned[:1])
            raise DataError(
                f"{path} holds {len(plans)} scans{explanation}. Name a NIfTI file or a folder with exactly one DICOM "
                "scan."
            )
        loaded = load_planned_scan(plans[0], limits=limits)
        # Training can do with a part of a scan; who names a scan wants all of it, or an error.
        if isinstance(plans[0], DicomLoadPlan) and loaded.trim and loaded.volume.shape[2] < len(plans[0].slices):
            raise Rejected(loaded.trim.reason, loaded.trim.detail)
        return loaded.volume
    except Rejected as rejected:
        raise rejected.about(path) from rejected
