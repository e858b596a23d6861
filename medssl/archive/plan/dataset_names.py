"""Which data set a scan belongs to: what the source that it was found in was called by whoever ingested it.

Rows in the index hold a pseudonym of the source, rows of the manifest its name or nothing: how folders are called
changes no manifest.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medssl.archive.index.database import Index
from medssl.archive.index.entries import IndexedFile
from medssl.archive.privacy.pseudonyms import Pseudonyms

# A name leaves the archive: a word, no path and no sentence.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"
_KEY = "datasets"
_LETTERS = 8


def dataset_id(pseudonyms: Pseudonyms, root: Path) -> str:
    """Pseudonym of a source, by its own name: an archive that moves as a whole stays what it was."""
    return pseudonyms.name("dataset", root.name)[:_LETTERS]


def source_of_files(pseudonyms: Pseudonyms, files: Sequence[IndexedFile]) -> str:
    """Pseudonym of the source of some files; of the first by name where they lie in several."""
    return dataset_id(pseudonyms, min((file.root for file in files), key=lambda root: root.name))


def name_datasets(index: Index, pseudonyms: Pseudonyms, roots: Iterable[Path], name: str | None) -> None:
    """Remember what these sources are called; without a name they are called what they were before."""
    if name is not None:
        homes = (root.parent if root.is_file() else root for root in roots)
        named = {dataset_id(pseudonyms, home): name for home in homes}
        index.put_metadata(_KEY, json.dumps({**dataset_names(index), **named}, sort_keys=True))


def dataset_names(index: Index) -> Mapping[str, str]:
    """Pseudonym of a source to its name, where it has one."""
    names: dict[str, str] = json.loads(index.metadata(_KEY) or "{}")
    return names
