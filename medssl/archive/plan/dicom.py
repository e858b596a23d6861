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
from medssl.archive.index.load_plan import DicomFile, DicomLoadPlan, DuplicateSlice, SliceLocation, StampedFile
from medssl.archive.index.planned_scan import PlannedScan
from medssl.archive.plan.dataset_names import source_of_files
from medssl.archive.plan.labels import IMAGE, LABEL, Attached, LabelObjects, files_of
from medssl.archive.privacy.pseudonyms import Pseudonyms, is_placeholder
from medssl.archive.series.assemble import AssembledScan, LeftOut, Patient, PatientOf, Rules, assemble
from medssl.archive.series.volumes import Slice
from medssl.cohort.reasons import Flag
from medssl.geometry import spacing_mm


def plan_dicom(index: Index, pseudonyms: Pseudonyms, rules: Rules, labels: LabelObjects) -> list[str]:
    """Plan every series with new or changed files; returns ids of scans that are stored no more."""
    removed: list[str] = []
    dirty = index.dirty_series()
    # Images first: only when all of them are planned is it known which label objects label none of them.
    for series in dirty:
        if series.startswith(IMAGE):
            removed += index.plan(series, _planned(index, series, pseudonyms, rules, labels))
    for series in dirty:
        if series.startswith(LABEL):
            parts = labels.left_out(series)
            dataset = source_of_files(pseudonyms, files_of(index, series)) if parts else ""
            removed += index.plan(series, [_left_out(series, part, pseudonyms, dataset) for part in parts])
    return removed


def _planned(
    index: Index, series: str, pseudonyms: Pseudonyms, rules: Rules, labels: LabelObjects
) -> list[IndexedScan]:
    """Scans of a series from the files that are there; also from files that are gone, where a stored scan or slices of
    one would be lost otherwise: they moved to tape, or their disk is not mounted.
    """
    files = list(index.files(series=series))
    scans = plan_series(series, files, pseudonyms, rules, labels) if files else []
    gone = list(index.vanished_files(series=series))
    stored = [before for scan in index.scans(series=series) if (before := scan.stored) is not None] if gone else []
    if _holds(scans, stored):
        return scans
    # A file that is gone counts only where a stored scan was read from it, and no copy of it is there: what was
    # renamed or unpacked is one file, not two with the same instance.
    copied = {parse_record(file.record or "").instance for file in files}
    needed = {path for scan in stored if scan.load_plan for path in scan.load_plan.image_paths}
    gone = [file for file in gone if os.fspath(file.path) in needed]
    gone = [file for file in gone if parse_record(file.record or "").instance not in copied]
    together = sorted([*files, *gone], key=lambda file: file.path)
    return plan_series(series, together, pseudonyms, rules, labels) if gone else scans


def _holds(scans: Sequence[IndexedScan], stored: Sequence[IndexedScan]) -> bool:
    """Whether every scan that is stored is planned again, with no slice less."""
    depths = {scan.scan_id: _depth(scan) for scan in scans if scan.load_plan_json is not None}
    return all(depths.get(scan.scan_id, 0) >= _depth(scan) for scan in stored)


def _depth(scan: IndexedScan) -> int:
    return (scan.planned.shape or (0,))[-1]


def plan_series(
    series: str, files: Sequence[IndexedFile], pseudonyms: Pseudonyms, rules: Rules, labels: LabelObjects | None = None
) -> list[IndexedScan]:
    """Scans and rejected parts of one series of images.

    Where UIDs were blanked or made equal, a series holds several patients. Each then has ids of his own, and labels of
    his own.
    """
    records = [parse_record(file.record or "") for file in files]

    def patient_of(record: Record) -> Patient:
        return pseudonyms.canonical_id(record.issuer, record.patient)

    assembly = assemble(list(enumerate(records)), rules, patient_of=patient_of)
    whose = patient_of if len({patient_of(record) for record in records}) > 1 else _single_patient
    attached = labels.attach(series, assembly.scans, whose) if labels else [Attached() for _ in assembly.scans]
    scans, dataset = [], source_of_files(pseudonyms, files)
    numbers = Counter[Patient]()
    for scan, label in zip(assembly.scans, attached, strict=True):
        planned = _identified(scan.record, pseudonyms, whose, dataset, number=str(numbers[whose(scan.record)]))
        numbers[whose(scan.record)] += 1
        planned = replace(
            planned,
            modality=modality_of_sop_class(scan.record.sop_class),
            flags=(*scan.flags, *planned.flags, *label.flags),
            shape=scan.shape,
            spacing_mm=spacing_mm(np.array(scan.affine_ras_mm).reshape(4, 4)),
            affine_ras_mm=scan.affine_ras_mm,
            n_files=len({slice_.file for slice_ in scan.slices}),
            n_volumes=scan.n_volumes,
        )
        load_plan = replace(_load_plan(scan, files, records), labels=label.objects)
        volume = f"volume {scan.volume + 1} of {scan.n_volumes}"
        detail = f"{scan.shape[2]} slices, tilt {scan.tilt_deg:.2f} degrees, {volume}"
        scans.append(IndexedScan.of(planned, series, load_plan, detail))
    return scans + [_left_out(series, part, pseudonyms, dataset, whose) for part in assembly.left_out]


def _single_patient(record: Record) -> Patient:
    """Whose a record is in a series of one patient: nobody's, so that ids do not depend on how he is spelled."""
    return ()


def _left_out(
    series: str, part: LeftOut, pseudonyms: Pseudonyms, dataset: str, whose: PatientOf = _single_patient
) -> IndexedScan:
    # The detail is part of the id: whoever rewords a detail of header.py, frames.py, mosaic.py, assemble.py or grid.py
    # gives the rejected rows with it another scan_id.
    number = pseudonyms.name("left-out", part.reason, part.detail)[:8]
    planned = _identified(part.record, pseudonyms, whose, dataset, number=number)
    planned = replace(planned, modality=part.record.modality, reason=part.reason, n_files=len(part.files))
    return IndexedScan.of(planned, series, None, part.detail)


def _identified(record: Record, pseudonyms: Pseudonyms, whose: PatientOf, dataset: str, *, number: str) -> PlannedScan:
    """What a record says of its scan under pseudonyms. The split goes by study where it names no patient."""
    suspect = is_placeholder(record.patient)
    series_id = pseudonyms.name("series", record.study, record.series, *whose(record))
    return PlannedScan(
        scan_id=f"{series_id}-{number}",
        series_id=series_id,
        study_id=pseudonyms.name("study", record.study),
        patient_id=(
            pseudonyms.name("patient", "study", record.study)
            if suspect
            else pseudonyms.patient(record.issuer, record.patient)
        ),
        dataset=dataset,
        body_part=record.body_part,
        manufacturer=record.manufacturer,
        model=record.model,
        flags=(Flag.F_PATIENT_ID_SUSPECT,) if suspect else (),
    )


def _load_plan(scan: AssembledScan, files: Sequence[IndexedFile], records: Sequence[Record]) -> DicomLoadPlan:
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
    stamped, layout = StampedFile.of(file.path, file.stamp), PixelFormat.of(record)
    return DicomFile(stamped, layout, record.pixel_at, record.grid, record.padding, record.lut)


def _slice(slice_: Slice, numbers: dict[int, int]) -> SliceLocation:
    frame, instance = slice_.frame, slice_.record.instance
    duplicates = tuple(
        DuplicateSlice(numbers[copy.file], copy.frame.number, copy.record.instance == instance)
        for copy in slice_.duplicates
    )
    return SliceLocation(numbers[slice_.file], frame.number, frame.tile, frame.slope, frame.intercept, duplicates)
