"""Patients under several ids: a list that somebody wrote down, or the hospital's own list of merged records."""

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
        known = (row.get("issuer", ""), _patient(row, "patient", path, number))
        other = (row.get("same_as_issuer", ""), _patient(row, "same_as", path, number))
        if pairs.setdefault(known, other) != other:
            raise UsageError(f"{path}, line {number}: an earlier line says otherwise of this id. Keep one of them.")
    return _straight(Crosswalk(pairs), path)


def _patient(row: dict[str, str], column: str, path: Path, line: int) -> str:
    word = normalised_patient_id(row[column])
    if is_placeholder(word):
        raise UsageError(
            f"{path}, line {line}: {column} is {word!r}, which stands for nobody in particular. Leave the line out."
        )
    return word


def with_crosswalk(index: Index, pseudonyms: Pseudonyms, path: Path | None) -> Pseudonyms:
    """Pseudonyms that give one name to patients under several ids: as earlier ingests were told, and now by `path`.

    Where a line is new, every series is planned again; what is stored stays as it is. Raises UsageError.
    """
    merged = {(known[0], known[1]): (other[0], other[1]) for known, other in json.loads(index.metadata(_KEY) or "[]")}
    if path:
        merged |= read_patients_file(path).same_as
    crosswalk = _straight(Crosswalk(merged), path)
    text = json.dumps(sorted(merged.items()))
    if merged and text != index.metadata(_KEY):
        index.make_all_dirty()
        index.put_metadata(_KEY, text)
    return Pseudonyms(pseudonyms.key, crosswalk)


def _straight(crosswalk: Crosswalk, path: Path | None) -> Crosswalk:
    """The crosswalk, if every id leads to one that stays. The message names nobody."""
    if any(crosswalk.leads_in_a_circle(*known) for known in crosswalk.same_as):
        raise UsageError(
            f"{path}, with what earlier ingests were told, leads from an id back to itself. "
            "Let every line lead to the id that stays."
        )
    return crosswalk
