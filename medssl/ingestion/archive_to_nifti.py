"""Archive to NIfTI: the scans that ingest would accept, on their own grid, under pseudonyms."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.checks import content_hash
from medssl.archive.index.database import Index
from medssl.archive.index.load_plan import LOAD_PLANS
from medssl.archive.index.planned_scan import Outcome
from medssl.archive.limits import Limits
from medssl.archive.nifti.write import write_nifti
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.scan import load_planned_scan
from medssl.cohort.manifest import write_manifest
from medssl.cohort.reasons import Reason
from medssl.errors import UsageError
from medssl.files import check_folder_creatable
from medssl.ingestion.planning import PlannedArchive, planned_archive
from medssl.ingestion.report import IngestReport, Tally
from medssl.ingestion.retries import load_with_retries
from medssl.ingestion.settings import IngestSettings
from medssl.progress import Silent, StageProgress


@dataclass(frozen=True)
class ConvertTask:
    """What a worker needs to know about one scan.

    Attributes:
        scan_id: its pseudonym.
        load_plan_json: what to read, as it lies in the index.
        path: the NIfTI file to write.
        limits: budgets of the worker.
        min_slices: fewest slices that may remain where some have to be left out.
    """

    scan_id: str
    load_plan_json: str
    path: Path
    limits: Limits
    min_slices: int


def convert(
    sources: Sequence[str | Path],
    out: Path,
    *,
    settings: IngestSettings | None = None,
    manifest: Path | None = None,
    progress: StageProgress | None = None,
) -> IngestReport:
    """Write every accepted scan as OUT/<scan_id>.nii.gz, one file per scan and time point.

    Voxels are rescaled and lie on the scan's own grid; the affine is exact, sheared where the gantry was tilted.

    Args:
        sources: files, folders, s3: or dicomweb: places.
        out: a folder to make, or an empty one.
        settings: as of ingest; what concerns the store has no effect.
        manifest: Parquet file to write the manifest to.
        progress: is told how far reading and writing are.

    Raises:
        UsageError: when `out` is not empty, or the manifest cannot be written where it is asked for.
    """
    settings, progress = settings or IngestSettings(), progress or Silent()
    _check_outputs(out, manifest)
    started_s = time.monotonic()
    with planned_archive(sources, None, settings, progress) as archive:
        waiting = archive.index.scans_to_load()
        if not settings.dry_run:
            out.mkdir(parents=True, exist_ok=True)
            _write_scans(archive, waiting, out, settings, progress)
        tally = Tally()
        rows = archive.rows(tally)
        if manifest is None or settings.dry_run:
            for _ in rows:
                pass
        else:
            write_manifest(manifest, rows)
        elapsed_s = time.monotonic() - started_s
        return tally.report(n_files=archive.n_files, n_loaded=len(waiting), elapsed_s=elapsed_s)


def _check_outputs(out: Path, manifest: Path | None) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder. Name another one for --out.")
    check_folder_creatable(out)
    if manifest is None:
        return
    if manifest.is_dir():
        raise UsageError(f"{manifest} is a folder. Name a file for --manifest, such as {manifest / 'nifti.parquet'}.")
    if not manifest.parent.is_dir() and manifest.parent.resolve() != out.resolve():
        raise UsageError(f"The folder {manifest.parent} does not exist. Make it, or name another path for --manifest.")


def _write_scans(
    archive: PlannedArchive, scan_ids: list[str], out: Path, settings: IngestSettings, progress: StageProgress
) -> None:
    results = load_with_retries(
        archive.workers,
        write_scan,
        _tasks(archive.index, scan_ids, out, settings),
        timeout_s=settings.limits.scan_seconds,
    )
    for number, (task, outcome) in enumerate(results, start=1):
        archive.index.put_outcome(task.scan_id, outcome)
        progress.step("writing scans", number, len(scan_ids))
    for scan_id in archive.index.duplicates():
        (out / f"{scan_id}.nii.gz").unlink(missing_ok=True)


def _tasks(index: Index, scan_ids: list[str], out: Path, settings: IngestSettings) -> Iterator[ConvertTask]:
    for scan_id in scan_ids:
        scan = index.scan(scan_id)
        if scan is not None and scan.load_plan_json is not None:
            path = out / f"{scan_id}.nii.gz"
            yield ConvertTask(scan_id, scan.load_plan_json, path, settings.limits, settings.min_slices)


def write_scan(task: ConvertTask) -> Outcome:
    """Load one scan and write it as NIfTI. Runs in a worker process."""
    try:
        plan = LOAD_PLANS.validate_json(task.load_plan_json)
        loaded = load_planned_scan(plan, limits=task.limits, min_slices=task.min_slices)
        write_nifti(task.path, loaded.volume)
    except Rejected as rejected:
        return Outcome.of(rejected)
    except MemoryError:
        return Outcome(Reason.TOO_LARGE, f"it needs more memory than {task.limits.worker_bytes} bytes")
    digest = content_hash(loaded.volume)
    return Outcome(reason=None, detail="", flags=loaded.flags, content_hash=digest, trim=loaded.trim)
