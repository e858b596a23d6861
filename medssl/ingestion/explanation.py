"""Which rule rejected or flagged a file, a scan or a series, with the values: from the private index, for people on the
machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medssl.archive.index.database import Index
from medssl.archive.index.entries import IndexedFile, IndexedScan
from medssl.archive.index.load_plan import DicomLoadPlan, NiftiLoadPlan
from medssl.errors import DataError


@dataclass(frozen=True)
class Explanation:
    """What became of a file or a scan.

    Attributes:
        what: whether it is about a file, a scan, or a file as the label of a scan.
        name: pseudonym, or path where paths may be shown.
        verdict: 'accepted', a reason code, or '-' for a file that is part of a series.
        detail: the values that fired the rule.
        action: what to do about it, if anything.
        flags: with their meanings.
    """

    what: Literal["file", "scan", "label"]
    name: str
    verdict: str
    detail: str
    action: str
    flags: tuple[str, ...]


def explain(index: Index, name: str, *, show_paths: bool) -> list[Explanation]:
    """What became of a file, a series or a scan.

    Args:
        index: of the cohort.
        name: path or name of a file, pseudonym of a series or scan, or UID of a series.
        show_paths: whether files are named by their path.

    Raises:
        DataError: when the index has nothing of that name.
    """
    files = list(index.find_files(name))
    explanations = [_rejected_file(file, show_paths=show_paths) for file in files if file.reason is not None]
    for series in _series(index, name, files):
        explanations += [
            _scan(scan)
            for scan in index.scans(series=series)
            if scan.scan_id == name or not name.startswith(f"{scan.planned.series_id}-")
        ]
        if show_paths:
            for file in index.files(series=series):
                explanations.append(Explanation("file", str(file.path), "-", "", "", ()))
    if files and not explanations:
        explanations = list(_as_labels(index, {str(file.path) for file in files}))
    if not explanations:
        raise DataError(
            f"the cohort has no file, series or scan {Path(name).name}. Give a path, a file name, "
            "or an id of the manifest."
        )
    return explanations


def _series(index: Index, name: str, files: list[IndexedFile]) -> list[str]:
    """Keys of the series that the name stands for or that its files belong to, each once."""
    keys = [file.series for file in files if file.series is not None]
    keys += [
        scan.series
        for scan in index.scans()
        if name in (scan.scan_id, scan.planned.series_id) or scan.series.endswith(f"/{name}")
    ]
    return list(dict.fromkeys(keys))


def _rejected_file(file: IndexedFile, *, show_paths: bool) -> Explanation:
    action = file.reason.action if file.reason else ""
    return Explanation("file", str(file.path) if show_paths else file.kind, str(file.reason), file.detail, action, ())


def _as_labels(index: Index, paths: set[str]) -> Iterator[Explanation]:
    """The scans that these files label: a label has no series of its own."""
    for scan in index.scans():
        plan = scan.load_plan
        if isinstance(plan, NiftiLoadPlan) and plan.label is not None and plan.label.path in paths:
            yield Explanation("label", scan.scan_id, "accepted", f"it labels the scan {scan.scan_id}", "", ())
        if isinstance(plan, DicomLoadPlan):
            for label in plan.labels:
                if label.file.path in paths:
                    values = ", ".join(f"structure {number} as label {value}" for number, value in label.values)
                    detail = f"it labels the scan {scan.scan_id}: {values}"
                    yield Explanation("label", scan.scan_id, "accepted", detail, "", ())


def _scan(scan: IndexedScan) -> Explanation:
    """A scan or rejected part, with what loading added."""
    planned, outcome = scan.planned, scan.outcome
    reason, detail = (outcome.reason, outcome.detail) if outcome and outcome.reason else (planned.reason, scan.detail)
    if outcome and outcome.label_reason:
        detail = f"{detail}; label left out: {outcome.label_detail} ({outcome.label_reason})".lstrip("; ")
    if outcome and outcome.trim:
        detail = f"{detail}; {outcome.trim.detail} ({outcome.trim.reason})"
    flags = dict.fromkeys((*planned.flags, *(outcome.flags if outcome else ())))
    meanings = tuple(f"{flag}: {flag.meaning}" for flag in flags)
    return Explanation("scan", scan.scan_id, reason or "accepted", detail, reason.action if reason else "", meanings)
