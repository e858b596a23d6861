"""Patients under several ids: a list that somebody wrote down, or the hospital's own list of merged records."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

from medssl.archive.identity import Crosswalk, Pseudonyms, is_placeholder, normalised_patient_id
from medssl.archive.index import Index
from medssl.errors import UsageError

_FACT = "patients"


@dataclass
class _Lines:
    """What has been read of a file so far."""

    path: Path
    pairs: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def add(self, number: int, row: dict[str, str | None]) -> None:
        """Take up one line."""
        words = {name: normalised_patient_id(row.get(name) or "") for name in ("patient", "same_as")}
        for name, word in words.items():
            if is_placeholder(word):
                raise UsageError(
                    f"{self.path}, line {number}: {name} is {word!r}, which stands for nobody in particular. "
                    "Leave the line out."
                )
        issuers = {name: (row.get(name) or "").strip() for name in ("issuer", "same_as_issuer")}
        known, other = (issuers["issuer"], words["patient"]), (issuers["same_as_issuer"], words["same_as"])
        if self.pairs.setdefault(known, other) != other:
            raise UsageError(
                f"{self.path}, line {number}: an earlier line says otherwise of this id. Keep one of them."
            )


def read_patients_file(path: Path) -> Crosswalk:
    """The crosswalk in a CSV with the columns `patient,same_as` and, where ids of several issuers meet,
    `issuer,same_as_issuer`.

    Raises UsageError when the file cannot be read, a line is wrong, or ids lead in a circle.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a CSV of patients. Check the path given to --patients.") from error
    if not rows or not {"patient", "same_as"} <= set(rows[0]):
        raise UsageError(f"{path} needs a header line 'patient,same_as' and at least one row. See docs/archive.md.")
    lines = _Lines(path)
    for number, row in enumerate(rows, start=2):
        lines.add(number, row)
    return _straight(Crosswalk(lines.pairs), path)


def with_crosswalk(index: Index, pseudonyms: Pseudonyms, path: Path | None) -> Pseudonyms:
    """Pseudonyms that give one name to patients under several ids: as earlier ingests were told, and now by `path`.

    Where a line is new, every series is planned again; what is stored stays as it is. Raises UsageError.
    """
    merged = {(known[0], known[1]): (other[0], other[1]) for known, other in json.loads(index.fact(_FACT) or "[]")}
    if path:
        merged |= read_patients_file(path).same_as
    crosswalk = _straight(Crosswalk(merged), path)
    text = json.dumps(sorted(merged.items()))
    if merged and text != index.fact(_FACT):
        index.make_all_dirty()
        index.put_fact(_FACT, text)
    return Pseudonyms(pseudonyms.key, crosswalk)


def _straight(crosswalk: Crosswalk, path: Path | None) -> Crosswalk:
    """The crosswalk, if every id leads to one that stays. The message names nobody."""
    if any(crosswalk.leads_in_a_circle(*known) for known in crosswalk.same_as):
        raise UsageError(
            f"{path}, with what earlier ingests were told, leads from an id back to itself. "
            "Let every line lead to the id that stays."
        )
    return crosswalk
