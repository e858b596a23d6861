"""Archive to NIfTI: the scans that ingest would accept, on their own grid, under pseudonyms."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.checks import content_hash
from medssl.archive.index.load_plan import parse_source
from medssl.archive.index.outcome import Outcome
from medssl.archive.limits import Limits
from medssl.archive.nifti.write import write_nifti
from medssl.archive.plan.rows import duplicates
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.scan import load_planned_scan
from medssl.cohort.manifest import write_manifest
from medssl.cohort.reasons import Reason
from medssl.errors import UsageError
from medssl.files import check_folder_creatable
from medssl.ingestion.ingest import prepared
from medssl.ingestion.report import IngestReport, Tally
from medssl.ingestion.settings import IngestSettings
from medssl.progress import Silent, StageProgress


@dataclass(frozen=True)
class Export:
    """What a worker needs to know about one scan."""

    scan_id: str
    source: str
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
    """Write every accepted scan as OUT/<scan_id>.nii.gz, one file per scan and time point, and the manifest where
    asked.

    Voxels are rescaled and lie on the scan's own grid; the affine is exact, sheared where the gantry was tilted.
    Raises UsageError when `out` is not empty, or the manifest can have no place.
    """
    settings, progress = settings or IngestSettings(), progress or Silent()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder. Name another one for --out.")
    check_folder_creatable(out)
    if manifest is not None and manifest.is_dir():
        raise UsageError(f"{manifest} is a folder. Name a file for --manifest, such as {manifest / 'nifti.parquet'}.")
    if manifest is not None and not manifest.parent.is_dir() and manifest.parent.resolve() != out.resolve():
        raise UsageError(f"{manifest.parent} is no folder. Make it, or name another place for --manifest.")
    started_s = time.monotonic()
    with prepared(sources, None, settings, progress) as ready:
        index, tally = ready.index, Tally()
        waiting = index.scans_to_load()
        if not settings.dry_run:
            out.mkdir(parents=True, exist_ok=True)

            def tasks(scan_ids: list[str]) -> Iterator[Export]:
                for scan_id in scan_ids:
                    scan = index.scan(scan_id)
                    if scan is not None and scan.source is not None:
                        path = out / f"{scan_id}.nii.gz"
                        yield Export(scan_id, scan.source, path, settings.limits, settings.min_slices)

            counts: Counter[str] = Counter()
            for task, outcome in ready.run(write_scan, tasks, waiting, settings.limits.scan_seconds):
                index.put_outcome(task.scan_id, outcome.text())
                counts[str(outcome.reason or "written")] += 1
                progress.step("writing scans", counts.total(), len(waiting), "")
            for scan_id in duplicates(index):
                (out / f"{scan_id}.nii.gz").unlink(missing_ok=True)
        rows = tally.watch(ready.rows(tally))
        if manifest is None or settings.dry_run:
            Counter(row.status for row in rows)
        else:
            write_manifest(manifest, rows)
        return tally.report(n_files=ready.n_files, n_loaded=len(waiting), elapsed_s=time.monotonic() - started_s)


def write_scan(task: Export) -> Outcome:
    """Load one scan and write it as NIfTI. Runs in a worker process."""
    try:
        loaded = load_planned_scan(parse_source(task.source), limits=task.limits, min_slices=task.min_slices)
        write_nifti(task.path, loaded.volume)
    except Rejected as rejected:
        return Outcome.of(rejected)
    except MemoryError:
        return Outcome(Reason.TOO_LARGE, f"it needs more memory than {task.limits.worker_bytes} bytes")
    digest = content_hash(loaded.volume)
    return Outcome(reason=None, detail="", flags=loaded.flags, content_hash=digest, trim=loaded.trim)
