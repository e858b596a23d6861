"""A cohort in numbers: verdicts, what an option would gain, and what kind of scans there are."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from medssl.cohort.manifest import ManifestRow

# The option of `medssl ingest` that keeps what a reason leaves out.
GAINED_BY = {
    "DERIVED": "--include-derived",
    "TOO_FEW_SLICES": "--min-slices",
    "VOLUME_LIMIT": "--volumes-per-series",
    "CONTAINER": "--containers",
    "SYMLINK_OUTSIDE_ROOT": "a source of its own",
    "IN_FLUX": "running it again",
    "IO_ERROR": "running it again",
    "TIMEOUT": "running it again",
}
_EXAMPLES = 3


@dataclass(frozen=True)
class Spread:
    """Least, middle and largest of a number."""

    least: float
    middle: float
    most: float


@dataclass(frozen=True)
class CohortSummary:
    """Counts over a manifest. examples: per reason a few scan ids. gains: per option the rejected rows it would bring
    back.

    spacing_mm: per modality the spread of in-plane and of slice spacing; slices: per modality that of the shortest
    edge in voxels.
    """

    accepted: int
    rejected: int
    labelled: int
    patients: int
    reasons: dict[str, int]
    examples: dict[str, list[str]]
    gains: dict[str, int]
    flags: dict[str, int]
    splits: dict[str, int]
    modalities: dict[str, int]
    manufacturers: dict[str, int]
    body_parts: dict[str, int]
    finest_mm: dict[str, Spread]
    coarsest_mm: dict[str, Spread]
    shortest_voxels: dict[str, Spread]

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def summarise(rows: Iterable[ManifestRow]) -> CohortSummary:
    """The numbers of a manifest."""
    rows = tuple(rows)
    accepted = [row for row in rows if row.accepted]
    rejected = [row for row in rows if not row.accepted]
    reasons = Counter(str(row.reason) for row in rejected)
    examples: dict[str, list[str]] = {}
    for row in rejected:
        shown = examples.setdefault(str(row.reason), [])
        if len(shown) < _EXAMPLES:
            shown.append(row.scan_id)
    gains: Counter[str] = Counter()
    for reason, count in reasons.items():
        if reason in GAINED_BY:
            gains[GAINED_BY[reason]] += count
    return CohortSummary(
        accepted=len(accepted),
        rejected=len(rejected),
        labelled=sum(row.labelled for row in accepted),
        patients=len({row.patient_id for row in accepted}),
        reasons=dict(reasons.most_common()),
        examples=examples,
        gains=dict(gains.most_common()),
        flags=dict(Counter(flag for row in accepted for flag in row.flags).most_common()),
        splits=dict(sorted(Counter(row.split for row in accepted).items())),
        modalities=dict(Counter(row.modality for row in accepted).most_common()),
        manufacturers=dict(Counter(row.manufacturer for row in accepted).most_common()),
        body_parts=dict(Counter(row.body_part for row in accepted).most_common()),
        finest_mm=_spreads((row.modality, min(row.spacing_mm)) for row in accepted if row.spacing_mm),
        coarsest_mm=_spreads((row.modality, max(row.spacing_mm)) for row in accepted if row.spacing_mm),
        shortest_voxels=_spreads((row.modality, float(min(row.shape))) for row in accepted if row.shape),
    )


def _spreads(values: Iterable[tuple[str, float]]) -> dict[str, Spread]:
    by_modality: dict[str, list[float]] = {}
    for modality, value in values:
        by_modality.setdefault(modality, []).append(value)
    return {modality: Spread(min(found), median(found), max(found)) for modality, found in sorted(by_modality.items())}
