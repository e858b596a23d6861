"""Two manifests side by side: what came, what went, what changed; and patients that sit in different splits."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medssl.cohort.cohort import MANIFEST, read_description
from medssl.cohort.manifest import ManifestRow, read_manifest
from medssl.errors import UsageError

# What two rows of one scan are compared by.
_ASPECTS: dict[str, Callable[[ManifestRow], object]] = {
    "voxels": lambda row: row.content_hash,
    "geometry": lambda row: (row.shape, row.spacing_mm, row.affine_ras_mm),
    "labels": lambda row: row.labels,
    "patient": lambda row: row.patient_id,
    "split": lambda row: row.split,
    "flags": lambda row: sorted(row.flags),
}


@dataclass(frozen=True)
class ManifestDifference:
    """From one manifest to another, about accepted scans by their id.

    Attributes:
        accepted: scans in each.
        added: scans of the second only.
        lost: scans of the first only, with the reason for which the second rejects them, or 'absent'.
        changed: per aspect (voxels, geometry, labels, patient, split, flags) scans of both in which it differs.
        reasons: rejected rows of each by reason, where the numbers differ.
        patients: in each, and in both.
        crossing: patients of both that are in different splits, so that what one trains on the other may test on.
    """

    accepted: tuple[int, int]
    added: tuple[str, ...]
    lost: dict[str, str]
    changed: dict[str, tuple[str, ...]]
    reasons: dict[str, tuple[int, int]]
    patients: tuple[int, int, int]
    crossing: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether both hold the same scans and reject the same."""
        return not (self.added or self.lost or self.changed or self.reasons)

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def compare_manifests(before: Sequence[ManifestRow], after: Sequence[ManifestRow]) -> ManifestDifference:
    """What changed from one manifest to another. Rejected parts are counted only: their ids name the verdict."""
    old = {row.scan_id: row for row in before if row.accepted}
    new = {row.scan_id: row for row in after if row.accepted}
    rejected = {row.scan_id: str(row.reason) for row in after if not row.accepted}
    common = sorted(old.keys() & new.keys())
    changed = {
        aspect: scans
        for aspect, value in _ASPECTS.items()
        if (scans := tuple(scan for scan in common if value(old[scan]) != value(new[scan])))
    }
    old_reasons, new_reasons = (
        Counter(str(row.reason) for row in rows if not row.accepted) for rows in (before, after)
    )
    old_splits, new_splits = ({row.patient_id: row.split for row in rows.values()} for rows in (old, new))
    patients = old_splits.keys() & new_splits.keys()
    return ManifestDifference(
        accepted=(len(old), len(new)),
        added=tuple(sorted(new.keys() - old.keys())),
        lost={scan: rejected.get(scan, "absent") for scan in sorted(old.keys() - new.keys())},
        changed=changed,
        reasons={
            code: (old_reasons[code], new_reasons[code])
            for code in sorted(old_reasons | new_reasons)
            if old_reasons[code] != new_reasons[code]
        },
        patients=(len(old_splits), len(new_splits), len(patients)),
        crossing=tuple(sorted(patient for patient in patients if old_splits[patient] != new_splits[patient])),
    )


def read_pair(before: Path, after: Path) -> tuple[tuple[ManifestRow, ...], tuple[ManifestRow, ...]]:
    """Rows of two cohorts or manifest files.

    Raises:
        UsageError: where two cohorts have pseudonyms under different keys, which cannot be compared.
    """
    keys = [read_description(path).key_id for path in (before, after) if path.is_dir()]
    if len(set(keys)) > 1:
        raise UsageError(
            f"{before} was made with the pseudonym key {keys[0]}, {after} with {keys[1]}: ids cannot be compared. "
            "Ingest one of them again with the other's --key-file."
        )
    return _rows(before), _rows(after)


def _rows(path: Path) -> tuple[ManifestRow, ...]:
    return read_manifest(path / MANIFEST if path.is_dir() else path)
