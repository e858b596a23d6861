"""NIfTI records to planned scans: which file is whose label, who the patient is, what the manifest says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.index.database import Index
from medssl.archive.index.entries import IndexedFile, IndexedScan, series_key
from medssl.archive.index.load_plan import NiftiLoadPlan, StampedFile, source_json
from medssl.archive.index.outcome import parse_row, row_json
from medssl.archive.nifti.dataset_json import Dataset, dataset_of, merged_label_names
from medssl.archive.nifti.pairing import pair, stem
from medssl.archive.plan.dataset_names import dataset_id
from medssl.archive.plan.datasets import datasets_here, datasets_out_of_reach
from medssl.archive.plan.moved_nifti import adopt_moved, label_out_of_reach, voxel_files
from medssl.archive.plan.nifti_modality import modality_told_of
from medssl.archive.privacy.pseudonyms import Pseudonyms, is_placeholder
from medssl.cohort.manifest import ManifestRow
from medssl.cohort.reasons import Flag, Reason
from medssl.geometry import spacing_mm

_MODALITY_WORDS = {
    "ct": "CT",
    "pt": "PT",
    "pet": "PT",
    "mr": "MR",
    "mri": "MR",
    "t1": "MR",
    "t1w": "MR",
    "t2": "MR",
    "t2w": "MR",
    "flair": "MR",
    "bold": "MR",
    "dwi": "MR",
    "adc": "MR",
    "pd": "MR",
    "pdw": "MR",
    "t1ce": "MR",
    "t1gd": "MR",
}


@dataclass(frozen=True)
class NiftiPlan:
    """What planning came to: label names of the cohort, and ids of scans that are no more."""

    label_names: dict[int, str]
    removed: list[str]


def plan_nifti(
    index: Index, pseudonyms: Pseudonyms, *, label_roots: tuple[Path, ...], told: Mapping[Path, str]
) -> NiftiPlan:
    """Plan every NIfTI file of the index. Raises DataError for a dataset.json that contradicts another, or is in use
    and damaged.
    """
    datasets = datasets_here(index, label_roots)
    files = {file.path: file for file in index.files(kind="nifti")}
    readable = [path for path, file in files.items() if file.reason is None]
    pairing = pair(files, label_roots=label_roots, datasets=datasets)
    identify = _Identify(index, pseudonyms, datasets, told)
    adopt_moved(index, [files[path] for path in readable])
    removed: list[str] = []
    for path in readable:
        series = series_key(path)
        if path in pairing.many_channels:
            scans = [identify.rejected(files[path], Reason.MULTI_CHANNEL, "its case has more than one channel")]
        elif path in pairing.images:
            label = pairing.images[path]
            scans = [identify.planned(files[path], files[label] if label else None)]
        elif path in pairing.lone_labels:
            scans = [identify.rejected(files[path], Reason.LABEL_WITHOUT_IMAGE, "no image has its name")]
        else:
            scans = []
        removed += index.plan(series, scans)
    return NiftiPlan(merged_label_names([*datasets.values(), *datasets_out_of_reach(index, datasets)]), removed)


@dataclass(frozen=True)
class _Identify:
    """Rows of the manifest for NIfTI files."""

    index: Index
    pseudonyms: Pseudonyms
    datasets: Mapping[Path, Dataset]
    told: Mapping[Path, str]

    def planned(self, file: IndexedFile, label: IndexedFile | None) -> IndexedScan:
        """A scan that is to be loaded."""
        found = StampedFile.of(label.path, label.stamp) if label else label_out_of_reach(self.index, file)
        voxels = voxel_files(self.index, file, [file.path, *([Path(found.path)] if found else [])])
        source = NiftiLoadPlan(StampedFile.of(file.path, file.stamp), found, voxels)
        row = self._row(file, None)
        return IndexedScan(row.scan_id, series_key(file.path), source_json(source), row_json(row), "", None)

    def rejected(self, file: IndexedFile, reason: Reason, detail: str) -> IndexedScan:
        """A file that is left out."""
        row = self._row(file, reason)
        return IndexedScan(row.scan_id, series_key(file.path), None, row_json(row), detail, None)

    def _row(self, file: IndexedFile, reason: Reason | None) -> ManifestRow:
        import numpy as np

        record = json.loads(file.record or "{}")
        affine = np.array(record["affine_ras_mm"]).reshape(4, 4)
        patient, suspect = self._patient(file)
        scan_id = self._scan_id(file)
        flags = (*record["flags"], *((Flag.F_PATIENT_ID_SUSPECT,) if suspect else ()))
        return ManifestRow(
            scan_id=scan_id,
            series_id=self.pseudonyms.name("series", scan_id),
            study_id=self.pseudonyms.name("study", "nifti", patient),
            patient_id=patient,
            modality=self._modality(file.path),
            body_part="unknown",
            manufacturer="unknown",
            model="unknown",
            status="rejected" if reason else "accepted",
            reason=reason,
            flags=flags,
            shape=tuple(record["shape"]),
            spacing_mm=spacing_mm(affine),
            affine_ras_mm=tuple(record["affine_ras_mm"]),
            n_files=1,
            n_volumes=1,
            split="train",
            content_hash=None,
            labels=(),
            dataset=dataset_id(self.pseudonyms, file.root),
        )

    def _scan_id(self, file: IndexedFile) -> str:
        """As before; of a new file from the path within its source, from the whole path if two sources agree."""
        own = next(self.index.scans(series=series_key(file.path)), None)
        if own is not None:
            return own.scan_id
        place = Path(file.root.name, file.path.relative_to(file.root)).as_posix()
        scan_id = self.pseudonyms.name("scan", "nifti", place)
        holder = self.index.scan(scan_id)
        if holder is None:
            return scan_id
        return self.pseudonyms.name("scan", "nifti", file.path.as_posix())

    def _patient(self, file: IndexedFile) -> tuple[str, bool]:
        """Pseudonym of the patient, and whether the name it comes from is a placeholder.

        The patient is the BIDS folder `sub-*` where there is one, else the file's name without ending and channel.
        Above the source a folder of that name means something else, unless the file is called after it too.
        """
        path, above = file.path, len(file.root.parts) - 1
        folders = list(enumerate(path.parent.parts))
        subjects = (part for place, part in reversed(folders) if place >= above or path.name.startswith(f"{part}_"))
        subject = next((part for part in subjects if part.startswith("sub-")), None)
        dataset = dataset_of(path, self.datasets)
        name = subject or stem(path)
        if subject is None and dataset and dataset.numbered_channels and name[-5:-4] == "_" and name[-4:].isdigit():
            name = name[:-5]
        suspect = is_placeholder(name)
        if suspect:
            own = next(self.index.scans(series=series_key(path)), None)
            before = parse_row(own.row) if own is not None else None
            if before is not None and Flag.F_PATIENT_ID_SUSPECT in before.flags:
                return before.patient_id, True
            return self.pseudonyms.name("patient", "nifti", path.as_posix()), True
        return self.pseudonyms.patient("nifti", name), False

    def _modality(self, path: Path) -> str:
        """As told, else from dataset.json's first channel, else from the BIDS suffix, else as before, if ever."""
        told = modality_told_of(path, self.told)
        if told:
            return told
        dataset = dataset_of(path, self.datasets)
        words = [dataset.channels.get(0, "")] if dataset else []
        words.append(stem(path).rsplit("_", 1)[-1])
        own = next(self.index.scans(series=series_key(path)), None)
        before = parse_row(own.row).modality if own is not None else "unknown"
        return next((_MODALITY_WORDS[word.lower()] for word in words if word.lower() in _MODALITY_WORDS), before)


def rejected_file_row(file: IndexedFile, pseudonyms: Pseudonyms) -> ManifestRow:
    """Row of a file that was left out before it could belong to any series."""
    if file.reason is None:
        raise ValueError("only a rejected file has such a row")
    name = pseudonyms.name("scan", "file", file.path.as_posix())
    patient = pseudonyms.name("patient", "file", file.path.as_posix())
    return ManifestRow(
        scan_id=name,
        series_id=pseudonyms.name("series", name),
        study_id=pseudonyms.name("study", name),
        patient_id=patient,
        modality="unknown",
        body_part="unknown",
        manufacturer="unknown",
        model="unknown",
        status="rejected",
        reason=file.reason,
        flags=(),
        shape=None,
        spacing_mm=None,
        affine_ras_mm=None,
        n_files=1,
        n_volumes=0,
        dataset=dataset_id(pseudonyms, file.root),
        split="train",
        content_hash=None,
        labels=(),
    )
