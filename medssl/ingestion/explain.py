"""Which rule fired for a file, a scan or a series, with the values: read from the private index, for people on the
machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.index.database import Index
from medssl.archive.index.entries import IndexedScan
from medssl.archive.index.load_plan import DicomLoadPlan, NiftiLoadPlan, parse_source
from medssl.archive.index.outcome import parse_outcome, parse_row
from medssl.cohort.reasons import Flag, Reason
from medssl.errors import DataError


@dataclass(frozen=True)
class Explanation:
    """One thing that became of a file or a series. what: 'file', 'scan' or 'label'; name: pseudonym or path; verdict:
    the code.
    """

    what: str
    name: str
    verdict: str
    detail: str
    action: str
    flags: tuple[str, ...]


def explain(index: Index, asked: str, *, show_paths: bool) -> list[Explanation]:
    """What became of a file (path or name), a series or a scan (pseudonym, or UID of a series).

    show_paths: name files by their path. Raises DataError when the cohort knows nothing of the kind.
    """
    found: list[Explanation] = []
    series: dict[str, None] = {}
    files = list(index.find_files(asked))
    for file in files:
        if file.reason is not None:
            name = str(file.path) if show_paths else file.kind
            found.append(Explanation("file", name, file.reason, file.detail, file.reason.action, ()))
        if file.series is not None:
            series[file.series] = None
    for scan in index.scans():
        row = parse_row(scan.row)
        if asked in (row.scan_id, row.series_id) or scan.series.endswith(f"/{asked}"):
            series[scan.series] = None
    for one in series:
        found += [
            _scan(scan)
            for scan in index.scans(series=one)
            if not asked.startswith(parse_row(scan.row).series_id + "-") or scan.scan_id == asked
        ]
        if show_paths:
            found += [Explanation("file", str(file.path), "-", "", "", ()) for file in index.files(series=one)]
    if files and not found:
        found = list(_as_labels(index, {str(file.path) for file in files}))
    if not found:
        raise DataError(
            f"the cohort knows no file, series or scan {Path(asked).name}. Give a path, a file name, "
            "or an id of the manifest."
        )
    return found


def _as_labels(index: Index, paths: set[str]) -> Iterator[Explanation]:
    """The scans that these files label: a label has no series of scans of its own."""
    for scan in index.scans():
        source = parse_source(scan.source) if scan.source else None
        if isinstance(source, NiftiLoadPlan) and source.label is not None and source.label.path in paths:
            yield Explanation("label", scan.scan_id, "accepted", f"it labels the scan {scan.scan_id}", "", ())
        if isinstance(source, DicomLoadPlan):
            for label in source.labels:
                if label.file.path in paths:
                    values = ", ".join(f"structure {number} as label {value}" for number, value in label.values)
                    detail = f"it labels the scan {scan.scan_id}: {values}"
                    yield Explanation("label", scan.scan_id, "accepted", detail, "", ())


def _scan(scan: IndexedScan) -> Explanation:
    """A scan or rejected part, with what loading added."""
    row = parse_row(scan.row)
    outcome = parse_outcome(scan.outcome) if scan.outcome else None
    reason = outcome.reason if outcome and outcome.reason else (Reason(row.reason) if row.reason else None)
    detail = outcome.detail if outcome and outcome.reason else scan.detail
    flags = [*row.flags, *(outcome.flags if outcome else ())]
    if outcome and outcome.label_reason:
        detail = f"{detail}; label left out: {outcome.label_detail} ({outcome.label_reason})".lstrip("; ")
    if outcome and outcome.trim:
        detail = f"{detail}; {outcome.trim.detail} ({outcome.trim.reason})"
    meanings = tuple(f"{flag}: {Flag(flag).meaning}" for flag in dict.fromkeys(flags))
    return Explanation("scan", scan.scan_id, reason or "accepted", detail, reason.action if reason else "", meanings)
