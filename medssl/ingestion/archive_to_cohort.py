"""Archive to cohort: read headers, plan scans, store them, write the manifest.

Each step leaves its result in the private index, so that a run that was killed is continued by running it again, and a
run over an unchanged archive does nothing.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medssl.archive.index.database import TRANSIENT_REASONS, Index
from medssl.archive.index.planned_scan import Outcome
from medssl.cohort.cohort import MANIFEST, CohortDescription, write_description
from medssl.cohort.manifest import ManifestRow, write_manifest
from medssl.files import remove_drafts
from medssl.ingestion.planning import PlannedArchive, planned_archive
from medssl.ingestion.report import IngestReport, Tally
from medssl.ingestion.retries import load_with_retries
from medssl.ingestion.settings import IngestSettings
from medssl.ingestion.store_scan import StoreTask, store_scan
from medssl.progress import Silent, StageProgress
from medssl.store.policy import StorePolicy
from medssl.store.volumes import packing_of, remove_volume, stored_scan_ids


def ingest(
    sources: Sequence[str | Path],
    cohort: Path,
    *,
    settings: IngestSettings | None = None,
    progress: StageProgress | None = None,
) -> IngestReport:
    """Bring every scan under `sources` into `cohort`, which is made or continued, and say what became of each.

    Args:
        sources: files, folders, s3: or dicomweb: places.
        cohort: folder of the cohort; nothing is written there in a dry run.
        settings: everything else; what is left out keeps the meaning it had in the cohort.
        progress: is told how far reading and storing are.

    Raises:
        UsageError: paths that do not exist, a folder that is not a cohort, or settings that contradict the cohort's.
        DataError: when the cohort cannot be written.
    """
    settings, progress = settings or IngestSettings(), progress or Silent()
    started_s = time.monotonic()
    with planned_archive(sources, None if settings.dry_run else cohort, settings, progress) as archive:
        tally, n_loaded = Tally(), 0
        if settings.dry_run:
            for _ in archive.rows(tally):
                pass
        else:
            for scan_id in archive.removed:
                remove_volume(cohort / "store", scan_id)
            n_loaded = _store(archive, cohort, settings, progress)
            _write(cohort, archive.rows(tally), archive)
            if archive.interrupted:
                _sweep(cohort, archive.index)
            archive.finish()
        return tally.report(
            n_files=archive.n_files, n_loaded=n_loaded, elapsed_s=time.monotonic() - started_s, notices=archive.notices
        )


def _store(archive: PlannedArchive, cohort: Path, settings: IngestSettings, progress: StageProgress) -> int:
    """Load and store every planned scan that is not in the store yet; returns how many were loaded."""
    index, store = archive.index, cohort / "store"
    waiting = _waiting(index, store)
    tasks = _tasks(archive, waiting, store, settings)
    counts: Counter[str] = Counter()
    for task, outcome in load_with_retries(archive.workers, store_scan, tasks, timeout_s=settings.limits.scan_seconds):
        counts[_record(index, task, outcome)] += 1
        note = ", ".join(f"{count} {word}" for word, count in counts.most_common(4))
        progress.step("storing scans", counts.total(), len(waiting), note)
    for scan_id in index.duplicates():
        remove_volume(store, scan_id)
    if waiting:
        remove_drafts(store)
    return len(waiting)


def _waiting(index: Index, store: Path) -> list[str]:
    """Ids of scans to load: never loaded, worth another try, or missing from the store."""
    duplicates = index.duplicates()
    waiting = index.scans_to_load()
    for scan in index.scans():
        if scan.outcome is None or scan.load_plan_json is None:
            continue
        reason = scan.outcome.reason
        missing = reason is None and scan.scan_id not in duplicates and not packing_of(store, scan.scan_id)
        if missing or reason in TRANSIENT_REASONS:
            waiting.append(scan.scan_id)
    return waiting


def _tasks(
    archive: PlannedArchive, scan_ids: Iterable[str], store: Path, settings: IngestSettings
) -> Iterator[StoreTask]:
    """What workers need to know, read from the index as they take it."""
    policy = StorePolicy.model_validate(archive.settings.policy)
    min_slices = archive.settings.rules["min_slices"]
    for scan_id in scan_ids:
        scan = archive.index.scan(scan_id)
        if scan is not None and scan.load_plan_json is not None:
            modality = scan.planned.modality
            yield StoreTask(scan_id, scan.load_plan_json, modality, store, policy, settings.limits, min_slices)


def _record(index: Index, task: StoreTask, outcome: Outcome) -> str:
    """Write down what loading a scan gave; returns the word that it is counted under."""
    if outcome.reason in TRANSIENT_REASONS:
        # It cannot be read for now. What is stored of it stays, and the next run plans it again: it may find the files
        # elsewhere.
        scan = index.scan(task.scan_id)
        index.mark_dirty([scan.series] if scan else [])
        if packing_of(task.store, task.scan_id) and index.put_back(task.scan_id):
            return "unchanged"
    if outcome.reason:
        remove_volume(task.store, task.scan_id)
    index.put_outcome(task.scan_id, outcome)
    return str(outcome.reason or "stored")


def _write(cohort: Path, rows: Iterator[ManifestRow], archive: PlannedArchive) -> None:
    """The manifest, then cohort.json, each replaced only when it is complete."""
    (cohort / "store").mkdir(exist_ok=True)
    remove_drafts(cohort)
    write_manifest(cohort / MANIFEST, rows)
    write_description(cohort, CohortDescription(**vars(archive.settings), label_names=archive.label_names))


def _sweep(cohort: Path, index: Index) -> None:
    """Remove from the store what belongs to no scan any more, which an ingest that was killed may have left there."""
    duplicates = index.duplicates()
    for scan_id in stored_scan_ids(cohort / "store"):
        scan = index.scan(scan_id)
        outcome = scan.outcome if scan else None
        if outcome is None or outcome.reason or scan_id in duplicates:
            remove_volume(cohort / "store", scan_id)
