"""The first half of ingest, convert and verify: read the headers that are new, and plan the scans."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.index.database import Index, open_index
from medssl.archive.index.missing import forget_elsewhere
from medssl.archive.index.planned_scan import manifest_row
from medssl.archive.labels.names import label_names, name_table, read_names_file
from medssl.archive.plan.dataset_names import dataset_names, name_datasets
from medssl.archive.plan.dicom import plan_dicom
from medssl.archive.plan.labels import label_objects
from medssl.archive.plan.nifti import plan_nifti, rejected_file
from medssl.archive.plan.nifti_modality import declare_modality, declared_modalities
from medssl.archive.plan.rows import scan_rows, trimmed
from medssl.archive.privacy.crosswalk import with_crosswalk
from medssl.archive.privacy.pseudonyms import Pseudonyms, ephemeral_pseudonyms, key_file, open_key
from medssl.archive.privacy.splits import read_splits_file, split_overrides
from medssl.archive.scan.collect import collect
from medssl.archive.scan.containers import index_containers
from medssl.archive.series.assemble import Rules
from medssl.archive.sources.walk import check_not_empty, resolve_sources
from medssl.archive.workers.local import LocalWorkers
from medssl.archive.workers.task import Workers
from medssl.cohort.manifest import ManifestRow
from medssl.cohort.reasons import Reason
from medssl.errors import UsageError
from medssl.files import check_folder_creatable
from medssl.ingestion.cohort_settings import CohortSettings, SplitAssigner, fix_settings
from medssl.ingestion.report import Tally
from medssl.ingestion.settings import IngestSettings
from medssl.progress import StageProgress

_UNFINISHED, _LABEL_ROOTS, _RULES = "unfinished", "label_roots", "rules"
# Files that were never meant to be scans: counted, but no row each.
_NO_ROW = frozenset({Reason.NOT_DICOM, Reason.DICOMDIR})


@dataclass(frozen=True)
class PlannedArchive:
    """Sources whose headers were read and whose scans were planned.

    Attributes:
        index: with the plans.
        pseudonyms: under the cohort's key.
        workers: for loading what was planned.
        settings: what holds for the whole cohort.
        assign_split: patient's pseudonym to split.
        label_names: class value to name.
        removed: ids of scans that are stored no more.
        n_files: files under the sources.
        interrupted: whether the last ingest into this cohort did not reach its end.
        notices: sentences on what holds from now on and did not before.
    """

    index: Index
    pseudonyms: Pseudonyms
    workers: Workers
    settings: CohortSettings
    assign_split: SplitAssigner
    label_names: dict[int, str]
    removed: list[str]
    n_files: int
    interrupted: bool
    notices: tuple[str, ...]

    def rows(self, tally: Tally) -> Iterator[ManifestRow]:
        """Rows of all scans, then of files that were left out by themselves, counted as they pass; files without a row
        of their own are counted too.
        """
        names = dataset_names(self.index)
        for row in scan_rows(self.index, self.pseudonyms, self.assign_split, names):
            yield tally.count(row)
        for file in self.index.rejected_files():
            if file.reason in _NO_ROW:
                tally.count_file(file.reason)
                continue
            planned = rejected_file(file, self.pseudonyms)
            split, dataset = self.assign_split(planned.patient_id), names.get(planned.dataset, planned.dataset)
            yield tally.count(manifest_row(planned, None, split=split, dataset=dataset))

    def finish(self) -> None:
        """Write down that the manifest and the store agree with the index."""
        self.index.put_metadata(_UNFINISHED, "")


@contextmanager
def planned_archive(
    sources: Sequence[str | Path], cohort: Path | None, settings: IngestSettings, progress: StageProgress
) -> Iterator[PlannedArchive]:
    """Read what is new under the sources and plan its scans. Without a cohort nothing of it stays behind."""
    roots = resolve_sources([*sources, *([settings.label_dir] if settings.label_dir else [])])
    check_not_empty(roots, follow_symlinks=settings.follow_symlinks)
    named_splits = read_splits_file(settings.splits) if settings.splits else {}
    with (
        _workers(settings, [*roots, *([cohort.resolve()] if cohort else [])]) as workers,
        _opened(cohort, settings) as (index, pseudonyms),
    ):
        # What was decided earlier, or is decided now.
        fixed, notices = fix_settings(index, _requested(settings, pseudonyms), named=_named(settings))
        interrupted = bool(index.metadata(_UNFINISHED))
        index.put_metadata(_UNFINISHED, "yes")
        pseudonyms = with_crosswalk(index, pseudonyms, settings.patients)
        name_datasets(index, pseudonyms, roots, settings.dataset)
        notices += declare_modality(index, roots, settings.modality)
        # Headers, then plans.
        n_files = _read_headers(index, workers, roots, cohort, settings, progress)
        names, removed = _plan(index, pseudonyms, roots, settings, fixed)
        assign_split = SplitAssigner(fixed, pseudonyms, split_overrides(index, named_splits, settings.splits))
        yield PlannedArchive(
            index, pseudonyms, workers, fixed, assign_split, names, removed, n_files, interrupted, tuple(notices)
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


def _requested(settings: IngestSettings, pseudonyms: Pseudonyms) -> CohortSettings:
    rules = settings.model_dump(include={"min_slices", "include_derived", "volumes_per_series"})
    policy = settings.policy.model_dump(mode="json")
    return CohortSettings(pseudonyms.key_id, settings.seed, settings.fractions, policy, rules)


def _named(settings: IngestSettings) -> frozenset[str]:
    """Settings that somebody gave; of the store policy its fields."""
    return frozenset(settings.model_fields_set | {f"policy.{name}" for name in settings.policy.model_fields_set})


def _read_headers(
    index: Index,
    workers: Workers,
    roots: Sequence[Path],
    cohort: Path | None,
    settings: IngestSettings,
    progress: StageProgress,
) -> int:
    """Read the headers that are new or changed into the index; returns the number of files under the sources."""
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
    return n_files


def _plan(
    index: Index, pseudonyms: Pseudonyms, roots: Sequence[Path], settings: IngestSettings, fixed: CohortSettings
) -> tuple[dict[int, str], list[str]]:
    """Plan what is new or changed. Returns the label names, and the ids of scans that are stored no more."""
    forget_elsewhere(index, roots)
    label_roots: list[str] = json.loads(index.metadata(_LABEL_ROOTS) or "[]")
    if settings.label_dir and os.fspath(settings.label_dir.resolve()) not in label_roots:
        label_roots.append(os.fspath(settings.label_dir.resolve()))
        index.put_metadata(_LABEL_ROOTS, json.dumps(label_roots))
    declared = declared_modalities(index)
    nifti = plan_nifti(index, pseudonyms, label_roots=tuple(map(Path, label_roots)), declared=declared)
    rules = Rules(**fixed.rules, limits=settings.limits)
    if index.metadata(_RULES) != repr(rules):
        # Other rules may keep slices that were left out while a scan was loaded, so those scans are loaded again.
        index.make_all_dirty()
        for scan_id in trimmed(index):
            index.load_again(scan_id)
        index.put_metadata(_RULES, repr(rules))
    table, changed = name_table(index, read_names_file(settings.label_names) if settings.label_names else None)
    labels = label_objects(index, table, nifti.label_names, all_again=changed)
    removed = plan_dicom(index, pseudonyms, rules, labels)
    return label_names(index, nifti.label_names), [*nifti.removed, *removed]
