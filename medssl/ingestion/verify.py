"""The same series through medssl and through another converter, compared volume by volume."""

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
from medssl.archive.index.load_plan import DicomFile, DicomLoadPlan, parse_source
from medssl.archive.index.outcome import parse_row
from medssl.archive.nifti.read import load_nifti
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.scan import load_planned_scan
from medssl.errors import DataError, UsageError
from medssl.geometry import Volume, to_ras
from medssl.ingestion.ingest import prepared
from medssl.ingestion.settings import IngestSettings
from medssl.progress import Silent, StageProgress

# dcm2niix rounds its affine to float32; voxels may differ by one rounding of a scale.
AFFINE_MM, VOXEL_SHARE = 0.02, 2e-3
_SECONDS = 600


@dataclass(frozen=True)
class Comparison:
    """One series. ours, theirs: volumes that each made; same: how many of theirs medssl has voxel for voxel, in the
    same place.
    """

    series_id: str
    ours: int
    theirs: int
    same: int
    same_voxels_elsewhere: int
    note: str

    @property
    def agrees(self) -> bool:
        """Whether every volume of either is one of the other."""
        return self.same == self.theirs == self.ours and not self.note


def verify_against_dcm2niix(
    sources: Sequence[str | Path],
    *,
    series: int = 20,
    seed: int = 0,
    settings: IngestSettings,
    progress: StageProgress | None = None,
) -> list[Comparison]:
    """Convert a sample of DICOM series with medssl and dcm2niix and compare voxels and affines.

    Raises UsageError when dcm2niix is not installed. A difference is no proof of who is right: dcm2niix leaves the
    shear of a tilted gantry
    out of the affine and applies Philips' private scale.
    """
    program = _program()
    progress = progress or Silent()
    settings = settings.model_copy(update={"include_derived": True, "volumes_per_series": 100_000, "min_slices": 1})
    found = []
    with prepared(sources, None, settings, progress) as ready:
        keys = sorted({scan.series for scan in ready.index.scans() if scan.source and scan.series.startswith("dicom:")})
        sample = sorted(Random(seed).sample(keys, min(series, len(keys))))
        for number, key in enumerate(sample, start=1):
            found.append(_compared(ready.index, key, program, settings))
            progress.step("comparing series", number, len(sample), "")
    return found


def _compared(index: Index, key: str, program: Path, settings: IngestSettings) -> Comparison:
    scans = [scan for scan in index.scans(series=key) if scan.source]
    series_id = parse_row(scans[0].row).series_id
    try:
        ours = [
            to_ras(load_planned_scan(parse_source(scan.source or ""), limits=settings.limits).volume) for scan in scans
        ]
    except Rejected as rejected:
        return Comparison(series_id, 0, 0, 0, 0, f"medssl: {rejected.reason}")
    paths = {file.file.path for scan in scans for file in _files(scan.source or "")}
    with tempfile.TemporaryDirectory() as folder:
        try:
            theirs = list(_converted(program, sorted(paths), Path(folder)))
        except (DataError, subprocess.SubprocessError) as error:
            return Comparison(series_id, len(ours), 0, 0, 0, f"dcm2niix: {type(error).__name__}")
    same = sum(any(_same(a, b) for a in ours) for b in theirs)
    elsewhere = sum(any(_same_voxels(a, b) for a in ours) for b in theirs) - same
    return Comparison(series_id, len(ours), len(theirs), same, elsewhere, "")


def _files(source: str) -> tuple[DicomFile, ...]:
    parsed = parse_source(source)
    return parsed.files if isinstance(parsed, DicomLoadPlan) else ()


def _converted(program: Path, paths: list[str], folder: Path) -> Iterator[Volume]:
    """Volumes that dcm2niix makes of some files. It sees links with numbers for names and a fixed pattern, never a
    name of the archive.
    """
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    for number, path in enumerate(paths):
        os.symlink(path, folder / "in" / f"{number:06d}.dcm")
    command: list[str | Path] = [
        program,
        "-z",
        "n",
        "-p",
        "n",
        "-b",
        "n",
        "-f",
        "scan_%s",
        "-o",
        folder / "out",
        folder / "in",
    ]
    subprocess.run(
        command, capture_output=True, timeout=_SECONDS, check=False, env={"PATH": os.environ.get("PATH", "")}
    )
    for made in sorted((folder / "out").glob("*.nii")):
        yield from _volumes(made)


def _volumes(path: Path) -> Iterator[Volume]:
    import nibabel

    image = nibabel.load(path)
    if len(image.shape) == 3 and min(image.shape) > 1:
        yield to_ras(load_nifti(path))
        return
    data = np.asanyarray(image.dataobj)
    for number in range(data.shape[3] if data.ndim == 4 else 1):
        yield to_ras(Volume(data[..., number] if data.ndim == 4 else data, image.affine))


def _same(a: Volume, b: Volume) -> bool:
    return _same_voxels(a, b) and bool(np.abs(a.affine_ras_mm - b.affine_ras_mm).max() <= AFFINE_MM)


def _same_voxels(a: Volume, b: Volume) -> bool:
    if a.shape != b.shape:
        return False
    span = max(float(np.ptp(b.voxels.astype(np.float64))), 1e-9)
    return bool(np.abs(a.voxels.astype(np.float64) - b.voxels.astype(np.float64)).max() <= VOXEL_SHARE * span)


def _program() -> Path:
    """dcm2niix on the path, or beside the interpreter where pip puts it."""
    beside = Path(sysconfig.get_path("scripts")) / "dcm2niix"
    found = shutil.which("dcm2niix") or (str(beside) if beside.is_file() else None)
    if found is None:
        raise UsageError("dcm2niix is not installed. Install it with: pip install dcm2niix")
    return Path(found)
