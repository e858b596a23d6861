"""Labels of structures, and their numbers: the same in every scan of a cohort.

Names in label objects are free text. A structure gets a label only if its name or code belongs to a term of `terms.py`,
or if the user has assigned a label to it (`--label-names`). The private index stores the number of a label when it
first occurs; the number never changes while the cohort grows.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medssl.archive.dicom.label_record import Structure
from medssl.archive.index.database import Index
from medssl.archive.labels.terms import term_of_codes, term_of_name
from medssl.archive.privacy.csv_table import read_table
from medssl.errors import DataError, UsageError

MAX_LABELS = 255
_NAMES, _VALUES = "label_object_names", "label_object_values"


@dataclass(frozen=True)
class NameTable:
    """Assigns labels to structures.

    Attributes:
        chosen: Name or codes of a structure to its label, '' to leave it out; None for the built-in terms.
    """

    chosen: Mapping[str, str] | None = None

    def label(self, structure: Structure) -> str | None:
        """The label; '' if the user leaves the structure out, None if no label is known for it."""
        if self.chosen is None:
            return term_of_name(structure.name) or term_of_codes(structure.codes)
        keys = map(_key, (structure.name, " ".join(structure.codes), *structure.codes[:1]))
        return next((self.chosen[key] for key in keys if key in self.chosen), None)


def read_names_file(path: Path) -> dict[str, str]:
    """Name or code of a structure to its label, from a CSV with the columns name,label. Raises UsageError."""
    chosen: dict[str, str] = {}
    for line, row in read_table(path, "name", "label", option="--label-names"):
        key, label = _key(row["name"]), row["label"]
        if not key:
            raise UsageError(f"{path}, line {line}: the name is blank. Write the name of a structure, or its code.")
        if chosen.setdefault(key, label) != label:
            raise UsageError(f"{path}, line {line}: the name has two labels. Keep one of the lines.")
    return chosen


def name_table(index: Index, chosen: Mapping[str, str] | None) -> tuple[NameTable, bool]:
    """The table of a cohort, and whether it has changed. `chosen`: the user's new labels; None keeps the old ones."""
    before = index.metadata(_NAMES)
    if chosen is None:
        return NameTable(json.loads(before) if before else None), False
    text = json.dumps(dict(chosen))
    if text != before:
        index.put_metadata(_NAMES, text)
    return NameTable(chosen), text != before


def numbered(
    index: Index, table: NameTable, structures: Iterable[Structure], dataset_names: Mapping[int, str]
) -> dict[str, int]:
    """Label to number, for all labels so far. New ones follow the order of the names file, else the alphabet.

    Args:
        index: Where the numbers are stored.
        table: Assigns labels to structures.
        structures: All structures of the cohort's label objects.
        dataset_names: Number to name of the NIfTI labels; a label of the same name gets the same number.

    Raises:
        DataError: A number would have two labels, or there are more than 255.
    """
    before = json.loads(index.metadata(_VALUES) or "{}")
    values: dict[str, int] = dict(before)
    taken = {name.casefold(): value for value, name in dataset_names.items() if value}
    _check(values, dataset_names)
    if table.chosen is not None:
        labels = list(table.chosen.values())
    else:
        labels = sorted({table.label(structure) or "" for structure in structures})
    for label in filter(None, labels):
        if label not in values:
            used = {*values.values(), *taken.values()}
            free = next(number for number in range(1, len(used) + 2) if number not in used)
            values[label] = taken.get(label.casefold(), free)
    if len(values) > MAX_LABELS:
        raise DataError(
            f"the label objects have {len(values)} labels, more than {MAX_LABELS}. Choose with --label-names."
        )
    if values != before:
        index.put_metadata(_VALUES, json.dumps(values))
    return values


def label_names(index: Index, dataset_names: Mapping[int, str]) -> dict[int, str]:
    """Number to name, over the NIfTI labels (`dataset_names`) and the label objects. Raises DataError if they clash."""
    values: dict[str, int] = json.loads(index.metadata(_VALUES) or "{}")
    _check(values, dataset_names)
    if not values:
        return dict(dataset_names)
    names = {0: "background"} | {value: label for label, value in values.items()} | dict(dataset_names)
    return dict(sorted(names.items()))


def _check(values: Mapping[str, int], dataset_names: Mapping[int, str]) -> None:
    for label, value in values.items():
        name = dataset_names.get(value, label)
        if name.casefold() != label.casefold():
            raise DataError(
                f"label {value} is {label!r} in the cohort's label objects and {name!r} in a dataset.json. "
                "Ingest them into separate cohorts."
            )


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()
