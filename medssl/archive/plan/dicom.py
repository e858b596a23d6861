"""DICOM records of the index to planned scans: assembled, under pseudonyms, with all that loading needs."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medssl.archive.dicom.pixels import PixelFormat
from medssl.archive.dicom.record import Record, parse_record
from medssl.archive.dicom.uids import modality_of_sop_class
from medssl.archive.index.database import Index
from medssl.archive.index.entries import IndexedFile, IndexedScan
from medssl.archive.index.load_plan import (
    DicomFile,
    DicomLoadPlan,
    DuplicateSlice,
    SliceLocation,
    StampedFile,
    image_paths,
    source_json,
)
from medssl.archive.index.outcome import parse_row, row_json
from medssl.archive.plan.dataset_names import source_of_files
from medssl.archive.plan.labels import IMAGE, LABEL, Attached, LabelObjects, files_of
from medssl.archive.privacy.pseudonyms import Pseudonyms, is_placeholder
from medssl.archive.series.assemble import Assembled, LeftOut, Patient, PatientOf, Rules, assemble
from medssl.archive.series.volumes import Slice
from medssl.cohort.manifest import ManifestRow
from medssl.cohort.reasons import Flag
from medssl.geometry import spacing_mm


def plan_dicom(index: Index, pseudonyms: Pseudonyms, rules: Rules, labels: LabelObjects) -> list[str]:
    """Plan every series with new or changed files, then the label objects of which none of them has use; returns ids of
    scans that are no more.
    """
    removed: list[str] = []
    dirty = index.dirty_series()
    for series in dirty:
        if series.startswith(IMAGE):
            removed += index.plan(series, _planned(index, series, pseudonyms, rules, labels))
    for series in dirty:
        if series.startswith(LABEL):
            parts = labels.left_out(series)
            dataset = source_of_files(pseudonyms, files_of(index, series)) if parts else ""
            removed += index.plan(series, [_left_out_scan(series, part, pseudonyms, dataset) for part in parts])
    return removed


def _planned(
    index: Index, series: str, pseudonyms: Pseudonyms, rules: Rules, labels: LabelObjects
) -> list[IndexedScan]:
    """Scans of a series from the files that are there; with those that are gone and stored, where it would lose a
    stored scan or slices of one otherwise: they moved to tape, or their disk is not mounted.
    """
    files = list(index.files(series=series))
    scans = plan_series(series, files, pseudonyms, rules, labels) if files else []
    gone = list(index.vanished_files(series=series))
    stored = [one for scan in index.scans(series=series) if (one := scan.stored) is not None] if gone else []
    if _holds(scans, stored):
        return scans
    copied = {parse_record(file.record or "").instance for file in files}
    needed = {path for scan in stored if scan.source for path in image_paths(scan.source)}
    gone = [file for file in gone if os.fspath(file.path) in needed]
    gone = [file for file in gone if parse_record(file.record or "").instance not in copied]
    together = sorted([*files, *gone], key=lambda file: file.path)
    return plan_series(series, together, pseudonyms, rules, labels) if gone else scans


def _holds(scans: Sequence[IndexedScan], stored: Sequence[IndexedScan]) -> bool:
    """Whether every scan that is stored is planned again, with no slice less."""
    depths = {scan.scan_id: (parse_row(scan.row).shape or (0,))[-1] for scan in scans if scan.source is not None}
    return all(depths.get(scan.scan_id, 0) >= (parse_row(scan.row).shape or (0,))[-1] for scan in stored)


def plan_series(
    series: str, files: Sequence[IndexedFile], pseudonyms: Pseudonyms, rules: Rules, labels: LabelObjects | None = None
) -> list[IndexedScan]:
    """Scans and rejected parts of one series of images.

    Where UIDs were blanked or made equal, a series holds several patients. Each then has ids of his own, and labels of
    his own.
    """
    records = [parse_record(file.record or "") for file in files]

    def patient_of(record: Record) -> Patient:
        return pseudonyms.one_id(record.issuer, record.patient)

    assembly = assemble(list(enumerate(records)), rules, patient_of=patient_of)
    whose = patient_of if len({patient_of(record) for record in records}) > 1 else _of_one
    attached = labels.attach(series, assembly.scans, whose) if labels else [Attached() for _ in assembly.scans]
    scans, dataset = [], source_of_files(pseudonyms, files)
    numbers = Counter[Patient]()
    for scan, label in zip(assembly.scans, attached, strict=True):
        series_id = _series_id(scan.record, pseudonyms, whose)
        row = _row(scan, series_id, numbers[whose(scan.record)], pseudonyms)
        numbers[whose(scan.record)] += 1
        row = replace(row, flags=(*row.flags, *label.flags), dataset=dataset)
        source = source_json(replace(_source(scan, files, records), labels=label.objects))
        detail = (
            f"{scan.shape[2]} slices, tilt {scan.tilt_deg:.2f} degrees, volume {scan.volume + 1} of {scan.n_volumes}"
        )
        scans.append(IndexedScan(row.scan_id, series, source, row_json(row), detail, None))
    return scans + [_left_out_scan(series, part, pseudonyms, dataset, whose) for part in assembly.left_out]


def _of_one(record: Record) -> Patient:
    """Whose a record is in a series of one patient: not told, so that ids do not depend on it."""
    return ()


def _left_out_scan(
    series: str, part: LeftOut, pseudonyms: Pseudonyms, dataset: str, whose: PatientOf = _of_one
) -> IndexedScan:
    row = replace(_left_out_row(part, _series_id(part.record, pseudonyms, whose), pseudonyms), dataset=dataset)
    return IndexedScan(row.scan_id, series, None, row_json(row), part.detail, None)


def _row(scan: Assembled, series_id: str, number: int, pseudonyms: Pseudonyms) -> ManifestRow:
    record = scan.record
    patient, flags = _patient(record, pseudonyms)
    affine = np.array(scan.affine_ras_mm).reshape(4, 4)
    return ManifestRow(
        scan_id=f"{series_id}-{number}",
        series_id=series_id,
        study_id=pseudonyms.name("study", record.study),
        patient_id=patient,
        modality=modality_of_sop_class(record.sop_class),
        body_part=record.body_part,
        manufacturer=record.manufacturer,
        model=record.model,
        status="accepted",
        reason=None,
        flags=(*scan.flags, *flags),
        shape=scan.shape,
        spacing_mm=spacing_mm(affine),
        affine_ras_mm=scan.affine_ras_mm,
        n_files=len({one.file for one in scan.slices}),
        n_volumes=scan.n_volumes,
        split="train",
        content_hash=None,
        labels=(),
    )


def _left_out_row(part: LeftOut, series_id: str, pseudonyms: Pseudonyms) -> ManifestRow:
    record = part.record
    patient, flags = _patient(record, pseudonyms)
    return ManifestRow(
        scan_id=f"{series_id}-{pseudonyms.name('left-out', part.reason, part.detail)[:8]}",
        series_id=series_id,
        study_id=pseudonyms.name("study", record.study),
        patient_id=patient,
        modality=record.modality,
        body_part=record.body_part,
        manufacturer=record.manufacturer,
        model=record.model,
        status="rejected",
        reason=part.reason,
        flags=flags,
        shape=None,
        spacing_mm=None,
        affine_ras_mm=None,
        n_files=len(part.files),
        n_volumes=0,
        split="train",
        content_hash=None,
        labels=(),
    )


def _series_id(record: Record, pseudonyms: Pseudonyms, whose: PatientOf) -> str:
    return pseudonyms.name("series", record.study, record.series, *whose(record))


def _patient(record: Record, pseudonyms: Pseudonyms) -> tuple[str, tuple[str, ...]]:
    """Pseudonym of the patient; of the study where the patient id is blank or a placeholder."""
    if is_placeholder(record.patient):
        return pseudonyms.name("patient", "study", record.study), (Flag.F_PATIENT_ID_SUSPECT,)
    return pseudonyms.patient(record.issuer, record.patient), ()


def _source(scan: Assembled, files: Sequence[IndexedFile], records: Sequence[Record]) -> DicomLoadPlan:
    keys = {copy.file for slice_ in scan.slices for copy in (slice_, *slice_.duplicates)}
    used = sorted(keys, key=lambda key: files[key].path)
    numbers = {key: number for number, key in enumerate(used)}
    return DicomLoadPlan(
        files=tuple(_file(files[key], records[key]) for key in used),
        slices=tuple(_slice(slice_, numbers) for slice_ in scan.slices),
        affine_ras_mm=scan.affine_ras_mm,
        modality=modality_of_sop_class(scan.record.sop_class),
    )


def _file(file: IndexedFile, record: Record) -> DicomFile:
    layout = PixelFormat(
        record.syntax, record.rows, record.columns, record.n_frames, record.bits_allocated, record.bits_stored,
        record.high_bit,
        record.signed,
    )  # fmt: skip
    return DicomFile(
        StampedFile.of(file.path, file.stamp), layout, record.pixel_at, record.grid, record.padding, record.lut
    )


def _slice(slice_: Slice, numbers: dict[int, int]) -> SliceLocation:
    frame, instance = slice_.frame, slice_.record.instance
    duplicates = (
        DuplicateSlice(numbers[duplicate.file], duplicate.frame.number, duplicate.record.instance == instance)
        for duplicate in slice_.duplicates
    )
    return SliceLocation(
        numbers[slice_.file], frame.number, frame.tile, frame.slope, frame.intercept, tuple(duplicates)
    )
