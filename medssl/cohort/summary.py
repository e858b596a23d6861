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
class Range:
    """Smallest value, median and largest value."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class CohortSummary:
    """Counts over a manifest, the commonest first.

    Attributes:
        accepted, rejected: rows.
        labelled: accepted scans with a label.
        patients: with an accepted scan.
        reasons: rejected rows by reason.
        examples: a few scan ids by reason.
        gains: per option the rejected rows that it could bring back.
        flags, splits, modalities, manufacturers, body_parts: accepted scans by each.
        finest_mm, coarsest_mm: smallest and largest voxel edge of a scan, by modality.
        shortest_voxels: shortest side of a scan, by modality.
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
    finest_mm: dict[str, Range]
    coarsest_mm: dict[str, Range]
    shortest_voxels: dict[str, Range]

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
        scan_ids = examples.setdefault(str(row.reason), [])
        if len(scan_ids) < _EXAMPLES:
            scan_ids.append(row.scan_id)
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
        finest_mm=_ranges((row.modality, min(row.spacing_mm)) for row in accepted if row.spacing_mm),
        coarsest_mm=_ranges((row.modality, max(row.spacing_mm)) for row in accepted if row.spacing_mm),
        shortest_voxels=_ranges((row.modality, float(min(row.shape))) for row in accepted if row.shape),
    )


def _ranges(values: Iterable[tuple[str, float]]) -> dict[str, Range]:
    by_modality: dict[str, list[float]] = {}
    for modality, value in values:
        by_modality.setdefault(modality, []).append(value)
    return {
        modality: Range(min(numbers), median(numbers), max(numbers))
        for modality, numbers in sorted(by_modality.items())
    }
