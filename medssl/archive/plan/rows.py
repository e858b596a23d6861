"""Manifest rows from the index: what was planned, what loading came to, and the split."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from medssl.archive.index.database import Index
from medssl.archive.index.outcome import COSTS_SLICES, Outcome, parse_outcome, parse_row
from medssl.archive.privacy.pseudonyms import Pseudonyms
from medssl.cohort.manifest import ManifestRow, Split
from medssl.cohort.reasons import Flag, Reason

_SIBLING_OVERLAP = 0.7


def scan_rows(index: Index, pseudonyms: Pseudonyms, split: Callable[[str], Split]) -> Iterator[ManifestRow]:
    """Rows of all scans, final: outcome, duplicates and split applied; a row of its own for each label and each part
    left out.
    """
    copies = duplicates(index)
    index.mark(_reconstruction_siblings(index))
    for scan in index.scans():
        planned = parse_row(scan.row)
        if index.is_marked(scan.scan_id):
            planned = replace(planned, flags=(*planned.flags, Flag.F_RECON_SIBLING))
        row = replace(planned, split=split(planned.patient_id))
        outcome = parse_outcome(scan.outcome) if scan.outcome else None
        yield _final(row, outcome, is_copy=scan.scan_id in copies)
        if outcome and outcome.label_reason:
            yield _part_row(row, outcome.label_reason, pseudonyms.name("label", row.scan_id))
        if outcome and outcome.trim:
            part_id = f"{row.series_id}-{pseudonyms.name('left-out', row.scan_id)[:8]}"
            yield _part_row(replace(row, n_files=outcome.trim.n_left_out), outcome.trim.reason, part_id)


def duplicates(index: Index) -> set[str]:
    """Ids of loaded scans that are voxel for voxel another scan that is kept."""
    return set(index.copies())


def trimmed(index: Index) -> list[str]:
    """Ids of scans of which slices were left out while they were loaded, or too many to keep the rest."""
    found = []
    for scan in index.scans():
        outcome = parse_outcome(scan.outcome) if scan.outcome else None
        if outcome and (outcome.trim or outcome.reason in COSTS_SLICES):
            found.append(scan.scan_id)
    return found


def _final(row: ManifestRow, outcome: Outcome | None, *, is_copy: bool) -> ManifestRow:
    if outcome is None or outcome.reason:
        reason = outcome.reason if outcome else row.reason
        return replace(row, status="rejected", reason=reason) if reason else row
    flags = tuple(dict.fromkeys((*row.flags, *outcome.flags)))
    row = replace(row, flags=flags, content_hash=outcome.content_hash, labels=outcome.labels)
    if outcome.trim:
        lost = outcome.trim
        row = replace(row, shape=lost.shape, affine_ras_mm=lost.affine_ras_mm, n_files=lost.n_files)
    if is_copy:
        return replace(row, status="rejected", reason=Reason.DUPLICATE_CONTENT, labels=())
    return row


def _part_row(row: ManifestRow, reason: Reason, part_id: str) -> ManifestRow:
    """Row of what is left out of a scan that is kept: its label, or slices."""
    return replace(
        row,
        scan_id=part_id,
        status="rejected",
        reason=reason,
        flags=(),
        shape=None,
        spacing_mm=None,
        affine_ras_mm=None,
        content_hash=None,
        labels=(),
    )


def _reconstruction_siblings(index: Index) -> Iterator[str]:
    """Ids of CT scans that cover the same part of a patient in one study as a scan of another series.

    Bone and soft kernel, thick and thin: for a pretext task they are positives, for a split they must stay together,
    which they do because the split goes by patient.
    """
    for _, study in itertools.groupby(index.rows_by_study("CT"), key=lambda scan: scan[0]):
        rows = [parse_row(text) for _, text in study]
        scans = [(row, _box(row)) for row in rows if row.shape and row.affine_ras_mm]
        for (row, box), (other, other_box) in itertools.combinations(scans, 2):
            apart = row.series_id != other.series_id and row.patient_id == other.patient_id
            if apart and _overlap(box, other_box) >= _SIBLING_OVERLAP:
                yield row.scan_id
                yield other.scan_id


def _box(row: ManifestRow) -> npt.NDArray[np.float64]:
    """(2, 3): lowest and highest RAS mm of a scan's corners."""
    affine = np.array(row.affine_ras_mm).reshape(4, 4)
    corners = np.array(list(itertools.product(*((0, size - 1) for size in row.shape or ()))))
    places = corners @ affine[:3, :3].T + affine[:3, 3]
    return np.stack([places.min(axis=0), places.max(axis=0)])


def _overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Volume that two boxes share over the volume of both together."""
    shared = np.clip(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0, None).prod()
    together = (a[1] - a[0]).prod() + (b[1] - b[0]).prod() - shared
    return float(shared / together) if together else 0.0
