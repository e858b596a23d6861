"""Manifest rows from the index: what was planned, what loading gave, and the split."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from medssl.archive.index.database import Index
from medssl.archive.index.planned_scan import COSTS_SLICES, PlannedScan, manifest_row
from medssl.archive.privacy.pseudonyms import Pseudonyms
from medssl.cohort.manifest import ManifestRow, Split
from medssl.cohort.reasons import Flag, Reason

_SIBLING_OVERLAP = 0.7


def scan_rows(
    index: Index, pseudonyms: Pseudonyms, split: Callable[[str], Split], datasets: Mapping[str, str]
) -> Iterator[ManifestRow]:
    """Rows of all scans, each followed by those of what is left out of it: its label, or slices.

    Args:
        index: after planning, and loading where it was asked for.
        pseudonyms: for the ids of what is left out.
        split: from a patient's pseudonym.
        datasets: pseudonym of a source to its name, where it has one.
    """
    duplicates = index.duplicates()
    index.mark(_reconstruction_siblings(index))
    for scan in index.scans():
        planned, outcome = scan.planned, scan.outcome
        if index.is_marked(scan.scan_id):
            planned = replace(planned, flags=(*planned.flags, Flag.F_RECON_SIBLING))
        row = partial(manifest_row, split=split(planned.patient_id), dataset=datasets.get(planned.dataset, ""))
        yield row(planned, outcome, is_duplicate=scan.scan_id in duplicates)
        # Parts are rows by themselves, so that no file of the archive is lost without a reason code.
        if outcome and outcome.label_reason:
            part = _part(planned, outcome.label_reason, pseudonyms.name("label", planned.scan_id))
            yield row(part, None)
        if outcome and outcome.trim:
            part_id = f"{planned.series_id}-{pseudonyms.name('left-out', planned.scan_id)[:8]}"
            part = replace(_part(planned, outcome.trim.reason, part_id), n_files=outcome.trim.n_left_out)
            yield row(part, None)


def trimmed(index: Index) -> list[str]:
    """Ids of scans of which slices were left out while they were loaded, or too many to keep the remaining ones."""
    return [
        scan.scan_id
        for scan in index.scans()
        if scan.outcome and (scan.outcome.trim or scan.outcome.reason in COSTS_SLICES)
    ]


def _part(planned: PlannedScan, reason: Reason, part_id: str) -> PlannedScan:
    """What is left out of a scan that stays: its label, or slices."""
    return replace(planned, scan_id=part_id, reason=reason, flags=(), shape=None, spacing_mm=None, affine_ras_mm=None)


def _reconstruction_siblings(index: Index) -> Iterator[str]:
    """Ids of CT scans that cover the same part of a patient in one study as a scan of another series.

    Bone and soft kernel, thick and thin: for a pretext task they are positives, for a split they must stay together,
    which they do because the split goes by patient.
    """
    for _, study in itertools.groupby(index.planned_by_study("CT"), key=lambda pair: pair[0]):
        scans = [(scan, _box(scan)) for _, scan in study if scan.shape and scan.affine_ras_mm]
        for (a, box_a), (b, box_b) in itertools.combinations(scans, 2):
            apart = a.series_id != b.series_id and a.patient_id == b.patient_id
            if apart and _overlap(box_a, box_b) >= _SIBLING_OVERLAP:
                yield a.scan_id
                yield b.scan_id


def _box(scan: PlannedScan) -> npt.NDArray[np.float64]:
    """(2, 3): lowest and highest RAS mm of a scan's corners."""
    affine = np.array(scan.affine_ras_mm).reshape(4, 4)
    corners = np.array(list(itertools.product(*((0, size - 1) for size in scan.shape or ()))))
    corners_ras_mm = corners @ affine[:3, :3].T + affine[:3, 3]
    return np.stack([corners_ras_mm.min(axis=0), corners_ras_mm.max(axis=0)])


def _overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Volume of the intersection of two boxes over that of their union."""
    intersection = np.clip(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0, None).prod()
    union = (a[1] - a[0]).prod() + (b[1] - b[0]).prod() - intersection
    return float(intersection / union) if union else 0.0
