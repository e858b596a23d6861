"""What loading a scan came to, and what it lost on the way, as both are kept in the index."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from medssl.archive.rejection import Rejected
from medssl.cohort.manifest import ManifestRow
from medssl.cohort.reasons import Flag, Reason

# What is wrong with the pixels of one file, and says nothing about the others.
DAMAGE = frozenset({Reason.TRUNCATED, Reason.BAD_PIXELS, Reason.BAD_HEADER, Reason.DEFLATE_LIMIT})
COSTS_SLICES = DAMAGE | {Reason.SOP_UID_COLLISION, Reason.DUPLICATE_POSITION}


@dataclass(frozen=True)
class Trim:
    """What a scan lost while it was loaded. shape, affine_ras_mm, n_files: of what is left. n_left_out: files that no
    slice of it comes from.
    """

    reason: Reason
    detail: str
    shape: tuple[int, int, int]
    affine_ras_mm: tuple[float, ...]
    n_files: int
    n_left_out: int
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Outcome:
    """What loading a scan came to. label_reason: why its label is left out, where it is. trim: what it lost."""

    reason: Reason | None
    detail: str
    flags: tuple[Flag, ...] = ()
    labels: tuple[int, ...] = ()
    content_hash: str | None = None
    label_reason: Reason | None = None
    label_detail: str = ""
    trim: Trim | None = None

    @classmethod
    def of(cls, rejected: Rejected) -> "Outcome":
        """A scan that is left out."""
        return cls(rejected.reason, rejected.detail)

    def text(self) -> str:
        """As it lies in the index."""
        return json.dumps(asdict(self))


def parse_outcome(text: str) -> Outcome:
    """The outcome that `Outcome.text` wrote."""
    facts = json.loads(text)
    for name in ("reason", "label_reason"):
        facts[name] = Reason(facts[name]) if facts[name] else None
    facts["flags"] = tuple(Flag(flag) for flag in facts["flags"])
    facts["labels"] = tuple(facts["labels"])
    facts["trim"] = _parse_trim(facts["trim"]) if facts.get("trim") else None
    return Outcome(**facts)


def _parse_trim(facts: dict[str, Any]) -> Trim:
    for name in ("shape", "affine_ras_mm"):
        facts[name] = tuple(facts[name])
    facts["reason"], facts["flags"] = Reason(facts["reason"]), tuple(Flag(flag) for flag in facts["flags"])
    return Trim(**facts)


def row_json(row: ManifestRow) -> str:
    """A row as it lies in the index."""
    return json.dumps(asdict(row), sort_keys=True)


def parse_row(text: str) -> ManifestRow:
    """The row that `row_json` wrote."""
    facts: dict[str, Any] = json.loads(text)
    for name in ("flags", "shape", "spacing_mm", "affine_ras_mm", "labels"):
        facts[name] = None if facts[name] is None else tuple(facts[name])
    return ManifestRow(**facts)
