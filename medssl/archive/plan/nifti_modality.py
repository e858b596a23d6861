"""The modality of NIfTI files, which do not tell it themselves: as somebody said it of the source they lie in."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from medssl.archive.index.database import Index

_FACT = "modalities"


def tell_modality(index: Index, roots: Sequence[Path], modality: str | None) -> list[str]:
    """Remember the modality of these sources, and of all below them; without one they keep what was said before.
    Returns a sentence for each source of which something else was said.
    """
    before = told_modalities(index)
    if modality is None:
        return []
    kept = {place: word for place, word in before.items() if not {place, *place.parents} & set(roots)}
    now = kept | dict.fromkeys(roots, modality)
    index.put_fact(_FACT, json.dumps({os.fspath(place): word for place, word in now.items()}, sort_keys=True))
    return [
        f"NIfTI scans in {root} are {modality} from now on, not {before[root]}."
        for root in roots
        if before.get(root, modality) != modality
    ]


def told_modalities(index: Index) -> dict[Path, str]:
    """Source to the modality of its NIfTI files, where it was told."""
    return {Path(place): word for place, word in json.loads(index.fact(_FACT) or "{}").items()}


def modality_told_of(path: Path, told: Mapping[Path, str]) -> str | None:
    """What was said of the innermost source that a file lies in."""
    return next((told[place] for place in (path, *path.parents) if place in told), None)
