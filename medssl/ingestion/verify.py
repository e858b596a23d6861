"""The same DICOM series converted by medssl and by dcm2niix, compared volume by volume."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from medssl.archive.index.database import Index
from medssl.archive.index.load_plan import DicomLoadPlan
from medssl.archive.nifti.read import load_nifti
from medssl.archive.plan.labels import IMAGE
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.scan import load_planned_scan
from medssl.errors import DataError, UsageError
from medssl.geometry import Volume, to_ras
from medssl.ingestion.planning import planned_archive
from medssl.ingestion.settings import IngestSettings
from medssl.progress import Silent, StageProgress

# dcm2niix rounds its affine to float32; voxels may differ by one rounding of a scale.
AFFINE_MM, VOXEL_TOLERANCE = 0.02, 2e-3
_SECONDS = 600


@dataclass(frozen=True)
class SeriesComparison:
    """One series, converted by medssl and by dcm2niix.

    Attributes:
        series_id: its pseudonym.
        medssl: number of volumes that medssl made.
        dcm2niix: number of volumes that dcm2niix made.
        equal: volumes of dcm2niix that medssl has with the same voxels and the same affine.
        equal_voxels_only: those that it has with the same voxels and another affine.
        note: why either made none.
    """

    series_id: str
    medssl: int
    dcm2niix: int
    equal: int
    equal_voxels_only: int
    note: str

    @property
    def agrees(self) -> bool:
        """Whether every volume of either is one of the other."""
        return self.equal == self.dcm2niix == self.medssl and not self.note


def verify_against_dcm2niix(
    sources: Sequence[str | Path],
    *,
    series: int = 20,
    seed: int = 0,
    settings: IngestSettings,
    progress: StageProgress | None = None,
) -> list[SeriesComparison]:
    """Convert a sample of DICOM series with medssl and dcm2niix and compare voxels and affines.

    A difference does not prove either wrong: dcm2niix leaves the shear of a tilted gantry out of the affine and applies
    Philips' private scale.

    Args:
        sources: files and folders with DICOM series.
        series: how many to compare, at most.
        seed: of the sample.
        settings: as of ingest; derived, short and long series are compared whatever they say.
        progress: is told how many are compared.

    Raises:
        UsageError: when dcm2niix is not installed.
    """
    program = _program()
    progress = progress or Silent()
    settings = settings.model_copy(update={"include_derived": True, "volumes_per_series": 100_000, "min_slices": 1})
    comparisons = []
    with planned_archive(sources, None, settings, progress) as archive:
        scans = [scan for scan in archive.index.scans() if scan.load_plan_json]
        keys = sorted({scan.series for scan in scans if scan.series.startswith(IMAGE)})
        sample = sorted(Random(seed).sample(keys, min(series, len(keys))))
        for number, key in enumerate(sample, start=1):
            comparisons.append(_compared(archive.index, key, program, settings))
            progress.step("comparing series", number, len(sample))
    return comparisons


def _compared(index: Index, key: str, program: Path, settings: IngestSettings) -> SeriesComparison:
    scans = [scan for scan in index.scans(series=key) if scan.load_plan]
    plans = [scan.load_plan for scan in scans if isinstance(scan.load_plan, DicomLoadPlan)]
    series_id = scans[0].planned.series_id
    try:
        medssl_volumes = [to_ras(load_planned_scan(plan, limits=settings.limits).volume) for plan in plans]
    except Rejected as rejected:
        return SeriesComparison(series_id, 0, 0, 0, 0, f"medssl: {rejected.reason}")
    paths = {path for plan in plans for path in plan.image_paths}
    with tempfile.TemporaryDirectory() as folder:
        try:
            dcm2niix_volumes = list(_converted(program, sorted(paths), Path(folder)))
        except (DataError, subprocess.SubprocessError) as error:
            return SeriesComparison(series_id, len(medssl_volumes), 0, 0, 0, f"dcm2niix: {type(error).__name__}")
    equal = sum(any(_equal(a, b) for a in medssl_volumes) for b in dcm2niix_volumes)
    equal_voxels = sum(any(_equal_voxels(a, b) for a in medssl_volumes) for b in dcm2niix_volumes)
    return SeriesComparison(series_id, len(medssl_volumes), len(dcm2niix_volumes), equal, equal_voxels - equal, "")


def _converted(program: Path, paths: list[str], folder: Path) -> Iterator[Volume]:
    """Volumes that dcm2niix makes of some files. It sees links with numbers for names and a fixed pattern, never a
    name of the archive.
    """
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    for number, path in enumerate(paths):
        os.symlink(path, folder / "in" / f"{number:06d}.dcm")
    options = ("-z", "n", "-p", "n", "-b", "n", "-f", "scan_%s", "-o")
    command: list[str | Path] = [program, *options, folder / "out", folder / "in"]
    environment = {"PATH": os.environ.get("PATH", "")}
    subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, env=environment)
    for written in sorted((folder / "out").glob("*.nii")):
        yield from _volumes(written)


def _volumes(path: Path) -> Iterator[Volume]:
    import nibabel

    image = nibabel.load(path)
    if len(image.shape) == 3 and min(image.shape) > 1:
        yield to_ras(load_nifti(path))
        return
    data = np.asanyarray(image.dataobj)
    for number in range(data.shape[3] if data.ndim == 4 else 1):
        yield to_ras(Volume(data[..., number] if data.ndim == 4 else data, image.affine))


def _equal(a: Volume, b: Volume) -> bool:
    return _equal_voxels(a, b) and bool(np.abs(a.affine_ras_mm - b.affine_ras_mm).max() <= AFFINE_MM)


def _equal_voxels(a: Volume, b: Volume) -> bool:
    if a.shape != b.shape:
        return False
    span = max(float(np.ptp(b.voxels.astype(np.float64))), 1e-9)
    return bool(np.abs(a.voxels.astype(np.float64) - b.voxels.astype(np.float64)).max() <= VOXEL_TOLERANCE * span)


def _program() -> Path:
    """dcm2niix on the path, or beside the interpreter where pip puts it."""
    beside = Path(sysconfig.get_path("scripts")) / "dcm2niix"
    program = shutil.which("dcm2niix") or (str(beside) if beside.is_file() else None)
    if program is None:
        raise UsageError("dcm2niix is not installed. Install it with: pip install dcm2niix")
    return Path(program)
