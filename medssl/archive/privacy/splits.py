"""A split that a user wrote: a CSV with the columns `file` and `split`, which overrides the keyed split."""

import json
import os
from pathlib import Path
from typing import get_args

from medssl.archive.index.database import Index
from medssl.archive.privacy.csv_table import read_table
from medssl.cohort.manifest import Split
from medssl.errors import DataError, UsageError

_SPLITS: tuple[Split, ...] = get_args(Split)


def read_splits_file(path: Path) -> dict[str, Split]:
    """File name to split. Raises UsageError when the file cannot be read or a row is wrong."""
    splits: dict[str, Split] = {}
    for line, row in read_table(path, "file", "split", option="--splits", of="splits"):
        name, split = row["file"], row["split"]
        if split not in _SPLITS:
            raise UsageError(f"{path}, line {line}: the split is {split!r}. Write train, val or test.")
        if splits.setdefault(name, split) != split:
            raise UsageError(f"{path}, line {line}: {name} is in two splits. Keep one of the lines.")
    return splits


def split_overrides(index: Index, named: dict[str, Split], path: Path | None) -> dict[str, Split]:
    """Pseudonym of a patient to split: from earlier ingests, and from `named` (by file name).

    Raises UsageError for a name that is not a file of the sources, or a patient in two splits.
    """
    earlier: dict[str, Split] = json.loads(index.metadata("splits") or "{}")
    new: dict[str, Split] = {}
    for name, split in named.items():
        patients = _patients(index, name)
        if not patients:
            raise UsageError(
                f"{path} names {name}, which is not a scan of the sources. Correct the name or leave the line out."
            )
        for patient in patients:
            if new.setdefault(patient, split) != split:
                raise UsageError(
                    f"{path} puts two scans of one patient into different splits ({name} into "
                    f"{split}). Put all scans of a patient into one split."
                )
    merged = earlier | new
    if merged != earlier:
        index.put_metadata("splits", json.dumps(merged, sort_keys=True))
    return merged


def _patients(index: Index, name: str) -> set[str]:
    """Pseudonyms of the patients whose scans a file belongs to."""
    files = [file for file in index.find_files(name) if file.series is not None]
    paths = {os.fspath(file.path) for file in files}
    pseudonyms: set[str] = set()
    try:
        for series in {file.series for file in files}:
            scans = list(index.scans(series=series))
            patients = {scan.planned.patient_id for scan in scans}
            if len(patients) > 1:  # equal UIDs: only the patient whose scan holds the file counts
                scans = [scan for scan in scans if scan.load_plan and paths & scan.load_plan.image_paths]
                patients = {scan.planned.patient_id for scan in scans}
            pseudonyms |= patients
        return pseudonyms
    except (ValueError, KeyError) as error:
        raise DataError("the private index is damaged. Restore it from a copy, or ingest into a new folder.") from error
