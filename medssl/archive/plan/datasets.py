"""The dataset.json files of an archive: what they say, and which of them cannot be used."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medssl.archive.index.database import Index
from medssl.archive.index.entries import series_key
from medssl.archive.index.missing import is_deserted
from medssl.archive.nifti.dataset_json import Dataset, read_dataset
from medssl.archive.rejection import Rejected

_KEY = "dataset_labels"


def datasets_here(index: Index, label_roots: Sequence[Path]) -> dict[Path, Dataset]:
    """Datasets by their folder. A file by that name that cannot be used is left out with a reason.

    Raises DataError where that would take labels from scans: the folder is named as one of labels, or its dataset.json
    was in use before.
    """
    used = {Path(folder) for folder in json.loads(index.metadata(_KEY) or "{}")}
    datasets = {}
    for file in list(index.files(kind="dataset")):
        folder, problem = file.path.parent, None
        try:
            dataset = read_dataset(file.path)
        except Rejected as rejected:
            if folder in used or any(folder in (root, *root.parents) for root in label_roots):
                raise rejected.about(file.path) from rejected
            dataset, problem = None, rejected
        if dataset is not None:
            datasets[folder] = dataset
        reason, detail = (problem.reason, problem.detail) if problem else (None, "")
        if (reason, detail) != (file.reason, file.detail):
            index.put_files([replace(file, reason=reason, detail=detail)])
    return datasets


def datasets_out_of_reach(index: Index, present: Mapping[Path, Dataset]) -> list[Dataset]:
    """Datasets of earlier runs whose dataset.json is gone while scans of theirs are stored, for their label names."""
    before: dict[str, dict[str, str]] = json.loads(index.metadata(_KEY) or "{}")
    names = {
        os.fspath(folder): {str(k): v for k, v in dataset.label_names.items()} for folder, dataset in present.items()
    }
    away = {
        folder: labels
        for folder, labels in before.items()
        if folder not in names and is_deserted(Path(folder)) and index.has_scans(f"{series_key(Path(folder))}/")
    }
    if before != names | away:
        index.put_metadata(_KEY, json.dumps(names | away, sort_keys=True))
    return [Dataset(Path(folder), {}, {int(k): v for k, v in labels.items()}, False) for folder, labels in away.items()]
