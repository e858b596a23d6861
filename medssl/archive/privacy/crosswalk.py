"""Patients with several ids: a list that a user wrote, or the hospital's own list of merged records."""

import json
from pathlib import Path

from medssl.archive.index.database import Index
from medssl.archive.privacy.csv_table import read_table
from medssl.archive.privacy.pseudonyms import Crosswalk, Pseudonyms, is_placeholder, normalised_patient_id
from medssl.errors import UsageError

_KEY = "patients"

Id = tuple[str, str]  # issuer, patient


def read_patients_file(path: Path) -> Crosswalk:
    """The crosswalk in a CSV with the columns `patient,same_as` and, where ids of several issuers meet,
    `issuer,same_as_issuer`.

    Raises UsageError when the file cannot be read, a line is wrong, or ids lead in a circle.
    """
    pairs: dict[Id, Id] = {}
    for number, row in read_table(path, "patient", "same_as", option="--patients", of="patients"):
        patient = (row.get("issuer", ""), _patient(row, "patient", path, number))
        same_as = (row.get("same_as_issuer", ""), _patient(row, "same_as", path, number))
        if pairs.setdefault(patient, same_as) != same_as:
            raise UsageError(f"{path}, line {number}: an earlier line contradicts it for this id. Keep one of them.")
    return _without_cycle(Crosswalk(pairs), path)


def _patient(row: dict[str, str], column: str, path: Path, line: int) -> str:
    patient_id = normalised_patient_id(row[column])
    if is_placeholder(patient_id):
        raise UsageError(
            f"{path}, line {line}: {column} is {patient_id!r}, a placeholder of many patients. Leave the line out."
        )
    return patient_id


def with_crosswalk(index: Index, pseudonyms: Pseudonyms, path: Path | None) -> Pseudonyms:
    """Pseudonyms that give one name to patients with several ids: those of earlier ingests, and those in `path`.

    A new line causes every series to be planned again; stored voxels stay. Raises UsageError.
    """
    stored = json.loads(index.metadata(_KEY) or "[]")
    merged = {(patient[0], patient[1]): (same_as[0], same_as[1]) for patient, same_as in stored}
    if path:
        merged |= read_patients_file(path).same_as
    crosswalk = _without_cycle(Crosswalk(merged), path)
    text = json.dumps(sorted(merged.items()))
    if merged and text != index.metadata(_KEY):
        index.make_all_dirty()
        index.put_metadata(_KEY, text)
    return Pseudonyms(pseudonyms.key, crosswalk)


def _without_cycle(crosswalk: Crosswalk, path: Path | None) -> Crosswalk:
    """The crosswalk, if every chain of ids ends. The message shows no id."""
    if any(crosswalk.has_cycle(*patient) for patient in crosswalk.same_as):
        raise UsageError(
            f"{path}, together with the lines of earlier ingests, leads from an id back to itself. "
            "Let every line lead to the id that remains."
        )
    return crosswalk
