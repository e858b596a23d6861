"""The labels of an ingested cohort on the native grids of their scans, for tests."""

from collections.abc import Iterator
from pathlib import Path

from medssl.archive.index.database import read_index
from medssl.archive.index.planned_scan import manifest_row
from medssl.archive.limits import Limits
from medssl.archive.voxels.scan import LoadedScan, load_planned_scan
from medssl.cohort.cohort import Cohort
from medssl.cohort.manifest import ManifestRow

LIMITS = Limits(field_of_view_mm=5.0)


def loaded(cohort: Path) -> list[tuple[ManifestRow, LoadedScan]]:
    """Every planned scan of a cohort, loaded again, by the number of its slices and its place."""
    with read_index(cohort / "private") as index:
        scans = [
            (manifest_row(scan.planned, None, split="train", dataset=""), scan.load_plan)
            for scan in index.scans()
            if scan.load_plan is not None
        ]
    read = [(row, load_planned_scan(plan, limits=LIMITS)) for row, plan in scans]
    return sorted(read, key=lambda pair: (pair[0].shape, pair[0].affine_ras_mm))


def only(cohort: Path) -> LoadedScan:
    """The one scan of a cohort."""
    ((_, scan),) = loaded(cohort)
    return scan


def rejected(cohort: Path) -> list[str]:
    return sorted(row.reason for row in Cohort.open(cohort).rows if not row.accepted)


def accepted(cohort: Path) -> Iterator[ManifestRow]:
    return (row for row in Cohort.open(cohort).rows if row.accepted)
