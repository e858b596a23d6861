"""NIfTI records to planned scans: which file is whose label, who the patient is, what the manifest says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.archive.index.database import Index
from medssl.archive.index.entries import IndexedFile, IndexedScan, series_key
from medssl.archive.index.load_plan import NiftiLoadPlan, StampedFile
from medssl.archive.index.planned_scan import PlannedScan
from medssl.archive.nifti.dataset_json import Dataset, dataset_of, merged_label_names
from medssl.archive.nifti.pairing import pair, stem
from medssl.archive.plan.dataset_names import dataset_id
from medssl.archive.plan.datasets import datasets_here, datasets_out_of_reach
from medssl.archive.plan.moved_nifti import adopt_moved, label_out_of_reach, voxel_files
from medssl.archive.plan.nifti_modality import declared_modality_of
from medssl.archive.privacy.pseudonyms import Pseudonyms, is_placeholder
from medssl.cohort.reasons import Flag, Reason
from medssl.geometry import spacing_mm

_MODALITY_WORDS = {
    "ct": "CT",
    **dict.fromkeys(("pt", "pet"), "PT"),
    **dict.fromkeys(("mr", "mri", "t1", "t1w", "t2", "t2w", "t1ce", "t1gd", "pd", "pdw"), "MR"),
    **dict.fromkeys(("flair", "bold", "dwi", "adc"), "MR"),
}


@dataclass(frozen=True)
class NiftiPlan:
    """What planning gave: label names of the cohort, and ids of scans that are stored no more."""

    label_names: dict[int, str]
    removed: list[str]


def plan_nifti(
    index: Index, pseudonyms: Pseudonyms, *, label_roots: tuple[Path, ...], declared: Mapping[Path, str]
) -> NiftiPlan:
    """Plan every NIfTI file of the index.

    Args:
        index: with the headers of all files.
        pseudonyms: for ids.
        label_roots: folders that hold labels only.
        declared: modality of the NIfTI files below a folder, as somebody declared it.

    Raises:
        DataError: for a dataset.json that contradicts another, or is in use and damaged.
    """
    datasets = datasets_here(index, label_roots)
    files = {file.path: file for file in index.files(kind="nifti")}
    readable = [path for path, file in files.items() if file.reason is None]
    pairing = pair(files, label_roots=label_roots, datasets=datasets)
    planner = _Planner(index, pseudonyms, datasets, declared)
    adopt_moved(index, [files[path] for path in readable])
    removed: list[str] = []
    for path in readable:
        if path in pairing.many_channels:
            scans = [planner.rejected(files[path], Reason.MULTI_CHANNEL, "its case has more than one channel")]
        elif path in pairing.images:
            label = pairing.images[path]
            scans = [planner.scan(files[path], files[label] if label else None)]
        elif path in pairing.lone_labels:
            scans = [planner.rejected(files[path], Reason.LABEL_WITHOUT_IMAGE, "no image has its name")]
        else:
            scans = []
        removed += index.plan(series_key(path), scans)
    return NiftiPlan(merged_label_names([*datasets.values(), *datasets_out_of_reach(index, datasets)]), removed)


@dataclass(frozen=True)
class _Planner:
    """Plans one NIfTI file at a time. A file that was planned before keeps its ids."""

    index: Index
    pseudonyms: Pseudonyms
    datasets: Mapping[Path, Dataset]
    declared: Mapping[Path, str]

    def scan(self, file: IndexedFile, label: IndexedFile | None) -> IndexedScan:
        """A scan that is to be loaded."""
        label_file = StampedFile.of(label.path, label.stamp) if label else label_out_of_reach(self.index, file)
        voxels = voxel_files(self.index, file, [file.path, *([Path(label_file.path)] if label_file else [])])
        load_plan = NiftiLoadPlan(StampedFile.of(file.path, file.stamp), label_file, voxels)
        return IndexedScan.of(self._planned(file), series_key(file.path), load_plan, "")

    def rejected(self, file: IndexedFile, reason: Reason, detail: str) -> IndexedScan:
        """A file that is left out."""
        return IndexedScan.of(replace(self._planned(file), reason=reason), series_key(file.path), None, detail)

    def _planned(self, file: IndexedFile) -> PlannedScan:
        import numpy as np

        record = json.loads(file.record or "{}")
        before = self._before(file)
        scan_id = before.scan_id if before else self._new_scan_id(file)
        patient, suspect = self._patient(file, before)
        return PlannedScan(
            scan_id=scan_id,
            series_id=self.pseudonyms.name("series", scan_id),
            study_id=self.pseudonyms.name("study", "nifti", patient),
            patient_id=patient,
            dataset=dataset_id(self.pseudonyms, file.root),
            modality=self._modality(file.path, before),
            flags=(*map(Flag, record["flags"]), *((Flag.F_PATIENT_ID_SUSPECT,) if suspect else ())),
            shape=tuple(record["shape"]),
            spacing_mm=spacing_mm(np.array(record["affine_ras_mm"]).reshape(4, 4)),
            affine_ras_mm=tuple(record["affine_ras_mm"]),
            n_volumes=1,
        )

    def _before(self, file: IndexedFile) -> PlannedScan | None:
        """As the file was planned before, if it was."""
        scan = next(self.index.scans(series=series_key(file.path)), None)
        return scan.planned if scan else None

    def _new_scan_id(self, file: IndexedFile) -> str:
        """From the path within its source; from the whole path where two sources agree in that."""
        within = Path(file.root.name, file.path.relative_to(file.root)).as_posix()
        scan_id = self.pseudonyms.name("scan", "nifti", within)
        if self.index.scan(scan_id) is None:
            return scan_id
        return self.pseudonyms.name("scan", "nifti", file.path.as_posix())

    def _patient(self, file: IndexedFile, before: PlannedScan | None) -> tuple[str, bool]:
        """Pseudonym of the patient, and whether the name it comes from is a placeholder.

        The patient is the BIDS folder `sub-*` where there is one, else the file's name without ending and channel.
        Above the source a folder of that name means something else, unless the file is called after it too.
        """
        path, depth = file.path, len(file.root.parts) - 1
        folders = list(enumerate(path.parent.parts))
        subjects = (part for level, part in reversed(folders) if level >= depth or path.name.startswith(f"{part}_"))
        subject = next((part for part in subjects if part.startswith("sub-")), None)
        dataset = dataset_of(path, self.datasets)
        name = subject or stem(path)
        if subject is None and dataset and dataset.numbered_channels and name[-5:-4] == "_" and name[-4:].isdigit():
            name = name[:-5]
        if not is_placeholder(name):
            return self.pseudonyms.patient("nifti", name), False
        if before is not None and Flag.F_PATIENT_ID_SUSPECT in before.flags:
            return before.patient_id, True
        return self.pseudonyms.name("patient", "nifti", path.as_posix()), True

    def _modality(self, path: Path, before: PlannedScan | None) -> str:
        """As declared, else from dataset.json's first channel, else from the BIDS suffix, else as before, if ever."""
        declared = declared_modality_of(path, self.declared)
        if declared:
            return declared
        dataset = dataset_of(path, self.datasets)
        words = [dataset.channels.get(0, "")] if dataset else []
        words.append(stem(path).rsplit("_", 1)[-1])
        modalities = (_MODALITY_WORDS[word.lower()] for word in words if word.lower() in _MODALITY_WORDS)
        return next(modalities, before.modality if before else "unknown")


def rejected_file(file: IndexedFile, pseudonyms: Pseudonyms) -> PlannedScan:
    """A file that was left out before it could belong to any series."""
    if file.reason is None:
        raise ValueError("only a rejected file has such a row")
    path = file.path.as_posix()
    scan_id = pseudonyms.name("scan", "file", path)
    return PlannedScan(
        scan_id=scan_id,
        series_id=pseudonyms.name("series", scan_id),
        study_id=pseudonyms.name("study", scan_id),
        patient_id=pseudonyms.name("patient", "file", path),
        dataset=dataset_id(pseudonyms, file.root),
        reason=file.reason,
    )
