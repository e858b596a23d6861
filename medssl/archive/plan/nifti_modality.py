"""The modality of NIfTI files, which have none in their headers: as somebody declared it for the source they lie in."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from medssl.archive.index.database import Index

_KEY = "modalities"


def declare_modality(index: Index, roots: Sequence[Path], modality: str | None) -> list[str]:
    """Remember the modality of these sources, and of all below them; without one they keep what was declared before.
    Returns a sentence for each source of which another one was declared.
    """
    if modality is None:
        return []
    before = declared_modalities(index)
    elsewhere = {folder: word for folder, word in before.items() if not {folder, *folder.parents} & set(roots)}
    now = elsewhere | dict.fromkeys(roots, modality)
    index.put_metadata(_KEY, json.dumps({os.fspath(folder): word for folder, word in now.items()}, sort_keys=True))
    return [
        f"NIfTI scans in {root} are {modality} from now on, not {before[root]}."
        for root in roots
        if before.get(root, modality) != modality
    ]


def declared_modalities(index: Index) -> dict[Path, str]:
    """Source to the modality that was declared for its NIfTI files."""
    return {Path(folder): word for folder, word in json.loads(index.metadata(_KEY) or "{}").items()}


def declared_modality_of(path: Path, declared: Mapping[Path, str]) -> str | None:
    """What was declared for the innermost source that a file lies in."""
    return next((declared[folder] for folder in (path, *path.parents) if folder in declared), None)
