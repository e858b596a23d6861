"""Archive to cohort: read headers, plan scans, store them, write the manifest.

Each step leaves its result in the private index, so that a run that was killed is continued by running it again, and a
run over an unchanged archive does nothing.
"""

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from medssl.archive.index.database import TRANSIENT_REASONS, Index, open_index
from medssl.archive.index.missing import forget_elsewhere
from medssl.archive.index.outcome import Outcome, parse_outcome, parse_row
from medssl.archive.labels.names import label_names, name_table, read_names_file
from medssl.archive.plan.dataset_names import dataset_names, name_datasets
from medssl.archive.plan.dicom import plan_dicom
from medssl.archive.plan.labels import label_objects
from medssl.archive.plan.nifti import plan_nifti, rejected_file_row
from medssl.archive.plan.nifti_modality import tell_modality, told_modalities
from medssl.archive.plan.rows import duplicates, scan_rows, trimmed
from medssl.archive.privacy.crosswalk import with_crosswalk
from medssl.archive.privacy.pseudonyms import Pseudonyms, ephemeral_pseudonyms, key_file, open_key
from medssl.archive.privacy.splits import overrides, read_splits_file
from medssl.archive.scan.collect import collect
from medssl.archive.scan.containers import index_containers
from medssl.archive.series.assemble import Rules
from medssl.archive.sources.walk import check_not_empty, resolve_sources
from medssl.archive.workers.local import LocalWorkers, Workers
from medssl.cohort.cohort import COHORT, FORMAT, MANIFEST
from medssl.cohort.manifest import ManifestRow, write_manifest
from medssl.cohort.reasons import Reason
from medssl.errors import UsageError
from medssl.files import check_folder_creatable, remove_drafts, write_bytes
from medssl.ingestion.cohort_settings import Settled, Splitter, settle
from medssl.ingestion.report import IngestReport, Tally
from medssl.ingestion.retries import T, attempts
from medssl.ingestion.settings import IngestSettings
from medssl.ingestion.store_scan import Intake, take_in
from medssl.progress import Silent, StageProgress
from medssl.store.policy import StorePolicy
from medssl.store.volumes import packing_of, remove_volume, stored_scan_ids

_UNFINISHED = "unfinished"
# Files that were never meant to be scans: counted, but no row each.
_NO_ROW = frozenset({Reason.NOT_DICOM, Reason.DICOMDIR})


def ingest(
    sources: Sequence[str | Path],
    cohort: Path,
    *,
    settings: IngestSettings | None = None,
    progress: StageProgress | None = None,
) -> IngestReport:
    """Bring every scan under `sources` into `cohort`, which is made or continued, and say what became of each.

    Raises UsageError for paths that do not exist, a folder that is no cohort, or settings that contradict the cohort's;
    DataError when the cohort cannot be written.
    """
    settings, progress = settings or IngestSettings(), progress or Silent()
    started_s = time.monotonic()
    with prepared(sources, None if settings.dry_run else cohort, settings, progress) as ready:
        for scan_id in ready.removed:
            remove_volume(cohort / "store", scan_id)
        n_loaded = 0 if settings.dry_run else _store(ready, cohort, settings, progress)
        tally = Tally()
        rows = tally.watch(ready.rows(tally))
        if settings.dry_run:
            Counter(row.status for row in rows)
        else:
            _write(cohort, rows, ready)
            if ready.interrupted:
                _sweep(cohort, ready.index)
            ready.index.put_fact(_UNFINISHED, "")
        elapsed_s = time.monotonic() - started_s
        return tally.report(n_files=ready.n_files, n_loaded=n_loaded, elapsed_s=elapsed_s, notices=ready.notices)


@dataclass(frozen=True)
class Prepared:
    """Sources whose headers were read and whose scans were planned. removed: ids of scans that are no more.

    interrupted: whether the last ingest into this cohort came to no end. notices: what holds from now on and did not
    before.
    """

    index: Index
    pseudonyms: Pseudonyms
    workers: Workers
    settled: Settled
    splitter: Splitter
    label_names: dict[int, str]
    removed: list[str]
    n_files: int
    interrupted: bool
    notices: tuple[str, ...]

    def rows(self, tally: Tally) -> Iterator[ManifestRow]:
        """Rows of all scans, then of files that were left out by themselves; what has no row is noted in `tally`."""
        names = dataset_names(self.index)
        for row in scan_rows(self.index, self.pseudonyms, self.splitter):
            yield replace(row, dataset=names.get(row.dataset, ""))
        for file in self.index.rejected_files():
            if file.reason in _NO_ROW:
                tally.note(file.reason, 1)
            else:
                row = rejected_file_row(file, self.pseudonyms)
                dataset = names.get(row.dataset, row.dataset)
                yield replace(row, split=self.splitter(row.patient_id), dataset=dataset)

    def run(
        self,
        function: Callable[[T], Outcome],
        tasks: Callable[[list[str]], Iterator[T]],
        scan_ids: list[str],
        timeout_s: float,
    ) -> Iterator[tuple[T, Outcome]]:
        """What loading each scan came to, as it comes."""
        return attempts(self.workers, function, tasks(scan_ids), timeout_s=timeout_s)


@contextmanager
def prepared(
    sources: Sequence[str | Path], cohort: Path | None, settings: IngestSettings, progress: StageProgress
) -> Iterator[Prepared]:
    """Read what is new under the sources and plan its scans. cohort: None leaves nothing behind."""
    roots = resolve_sources([*sources, *([settings.labels] if settings.labels else [])])
    check_not_empty(roots, follow_symlinks=settings.follow_symlinks)
    named_splits = read_splits_file(settings.splits) if settings.splits else {}
    with (
        _workers(settings, [*roots, *([cohort.resolve()] if cohort else [])]) as workers,
        _opened(cohort, settings) as (index, pseudonyms),
    ):
        settled, notices = settle(index, _asked(settings, pseudonyms), named=_named(settings))
        interrupted = bool(index.fact(_UNFINISHED))
        index.put_fact(_UNFINISHED, "yes")
        pseudonyms = with_crosswalk(index, pseudonyms, settings.patients)
        name_datasets(index, pseudonyms, roots, settings.dataset)
        notices += tell_modality(index, roots, settings.modality)
        n_files = collect(
            roots,
            index,
            workers,
            limits=settings.limits,
            follow_symlinks=settings.follow_symlinks,
            exclude=cohort.resolve() if cohort else None,
            on_progress=lambda n_files, read: progress.step("reading headers", read, None, f"{n_files} files listed"),
        )
        if settings.containers:
            index_containers(
                index,
                workers,
                limits=settings.limits,
                on_progress=lambda opened, read: progress.step("reading containers", read, None, f"{opened} opened"),
            )
        label_names, removed = _plan(index, pseudonyms, roots, settings, settled)
        splitter = settled.splitter(pseudonyms, overrides(index, named_splits, settings.splits))
        yield Prepared(
            index, pseudonyms, workers, settled, splitter, label_names, removed, n_files, interrupted, tuple(notices)
        )


@contextmanager
def _opened(cohort: Path | None, settings: IngestSettings) -> Iterator[tuple[Index, Pseudonyms]]:
    """Index and pseudonyms of a cohort; without one, an index that is gone afterwards."""
    if cohort is None:
        pseudonyms = ephemeral_pseudonyms() if settings.dry_run else open_key(key_file(settings.key_file))
        with tempfile.TemporaryDirectory() as folder, open_index(Path(folder, "private")) as index:
            yield index, pseudonyms
        return
    private = cohort / "private"
    if cohort.exists() and not cohort.is_dir():
        raise UsageError(f"{cohort} is a file. Name a folder for the cohort.")
    check_folder_creatable(cohort)
    if cohort.is_dir() and any(cohort.iterdir()) and not (private / "index.sqlite").exists():
        raise UsageError(f"{cohort} is neither empty nor a cohort. Name another folder for --out.")
    pseudonyms = open_key(key_file(settings.key_file))
    with open_index(private) as index:
        yield index, pseudonyms


def _workers(settings: IngestSettings, must_see: Sequence[Path]) -> Workers:
    if settings.scheduler is not None:
        from medssl.archive.workers.dask import ClusterWorkers

        mounted = [path for path in must_see if path.is_absolute()]  # what is on a server has another kind of path
        return ClusterWorkers(settings.scheduler, worker_bytes=settings.limits.worker_bytes, must_see=mounted)
    count = len(os.sched_getaffinity(0)) if settings.workers is None else settings.workers
    return LocalWorkers(count, worker_bytes=settings.limits.worker_bytes)


def _asked(settings: IngestSettings, pseudonyms: Pseudonyms) -> Settled:
    rules = settings.model_dump(include={"min_slices", "include_derived", "volumes_per_series"})
    policy = settings.policy.model_dump(mode="json")
    return Settled(pseudonyms.key_id, settings.seed, settings.fractions, policy, rules)


def _named(settings: IngestSettings) -> frozenset[str]:
    """Settings that somebody gave; of the store policy its fields."""
    return frozenset(settings.model_fields_set | {f"policy.{name}" for name in settings.policy.model_fields_set})


def _plan(
    index: Index, pseudonyms: Pseudonyms, roots: Sequence[Path], settings: IngestSettings, settled: Settled
) -> tuple[dict[int, str], list[str]]:
    """Plan what is new or changed. Returns the label names, and the ids of scans that are no more."""
    forget_elsewhere(index, roots)
    label_roots: list[str] = json.loads(index.fact("label_roots") or "[]")
    if settings.labels and os.fspath(settings.labels.resolve()) not in label_roots:
        label_roots.append(os.fspath(settings.labels.resolve()))
        index.put_fact("label_roots", json.dumps(label_roots))
    plan = plan_nifti(index, pseudonyms, label_roots=tuple(map(Path, label_roots)), told=told_modalities(index))
    rules = Rules(**settled.rules, limits=settings.limits)
    if index.fact("rules") != repr(rules):
        index.make_all_dirty()
        for scan_id in trimmed(index):
            index.load_again(scan_id)
        index.put_fact("rules", repr(rules))
    table, changed = name_table(index, read_names_file(settings.label_names) if settings.label_names else None)
    labels = label_objects(index, table, plan.label_names, all_again=changed)
    removed = plan_dicom(index, pseudonyms, rules, labels)
    return label_names(index, plan.label_names), [*plan.removed, *removed]


def _store(ready: Prepared, cohort: Path, settings: IngestSettings, progress: StageProgress) -> int:
    """Load and store every planned scan that is not in the store yet; returns how many were loaded."""
    index = ready.index
    waiting = _waiting(index, cohort)
    policy = StorePolicy.model_validate(ready.settled.policy)
    min_slices = ready.settled.rules["min_slices"]

    def tasks(scan_ids: list[str]) -> Iterator[Intake]:
        for scan_id in scan_ids:
            scan = index.scan(scan_id)
            if scan is not None and scan.source is not None:
                modality = parse_row(scan.row).modality
                store = cohort / "store"
                yield Intake(scan_id, scan.source, modality, store, policy, settings.limits, min_slices)

    counts: Counter[str] = Counter()
    for task, outcome in ready.run(take_in, tasks, waiting, settings.limits.scan_seconds):
        if _kept_as_it_was(outcome, task, index):
            counts["kept as it was"] += 1
        else:
            if outcome.reason:
                remove_volume(task.store, task.scan_id)
            index.put_outcome(task.scan_id, outcome.text())
            counts[str(outcome.reason or "stored")] += 1
        note = ", ".join(f"{count} {word}" for word, count in counts.most_common(4))
        progress.step("storing scans", counts.total(), len(waiting), note)
    for scan_id in duplicates(index):
        remove_volume(cohort / "store", scan_id)
    if waiting:
        remove_drafts(cohort / "store")
    return len(waiting)


def _kept_as_it_was(outcome: Outcome, task: Intake, index: Index) -> bool:
    """Whether a scan stays what it is in the store, because it cannot be loaded anew for a reason that may pass. It is
    planned again by the next run, which may find its files elsewhere.
    """
    if outcome.reason not in TRANSIENT_REASONS:
        return False
    scan = index.scan(task.scan_id)
    index.mark_dirty([scan.series] if scan else [])
    return bool(packing_of(task.store, task.scan_id)) and index.put_back(task.scan_id)


def _waiting(index: Index, cohort: Path) -> list[str]:
    """Ids of scans to load: never loaded, worth another try, or missing from the store."""
    twins = duplicates(index)
    waiting = index.scans_to_load()
    for scan in index.scans():
        if scan.outcome is None or scan.source is None:
            continue
        reason = parse_outcome(scan.outcome).reason
        missing = reason is None and scan.scan_id not in twins and not packing_of(cohort / "store", scan.scan_id)
        if missing or reason in TRANSIENT_REASONS:
            waiting.append(scan.scan_id)
    return waiting


def _write(cohort: Path, rows: Iterator[ManifestRow], ready: Prepared) -> None:
    """The manifest, then cohort.json, each replaced only when it is complete."""
    from importlib.metadata import version

    (cohort / "store").mkdir(exist_ok=True)
    remove_drafts(cohort)
    write_manifest(cohort / MANIFEST, rows)
    facts = {"format": FORMAT, "medssl": version("medssl"), **asdict(ready.settled), "label_names": ready.label_names}
    write_bytes(cohort / COHORT, f"{json.dumps(facts, indent=2)}\n".encode())


def _sweep(cohort: Path, index: Index) -> None:
    """Remove from the store what belongs to no scan any more, which an ingest that was killed may have left there."""
    twins = duplicates(index)
    for scan_id in stored_scan_ids(cohort / "store"):
        scan = index.scan(scan_id)
        outcome = parse_outcome(scan.outcome) if scan and scan.outcome else None
        if outcome is None or outcome.reason or scan_id in twins:
            remove_volume(cohort / "store", scan_id)
