"""A scan on its way into the manifest: as planned from headers, what loading it gave, and both together as a row."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from medssl.archive.index.path_text import PathText
from medssl.archive.rejection import Rejected
from medssl.cohort.manifest import ManifestRow, Split
from medssl.cohort.reasons import Flag, Reason

# What is wrong with the pixels of one file, and says nothing about the others.
DAMAGE = frozenset({Reason.TRUNCATED, Reason.BAD_PIXELS, Reason.BAD_HEADER, Reason.DEFLATE_LIMIT})
COSTS_SLICES = DAMAGE | {Reason.SOP_UID_COLLISION, Reason.DUPLICATE_POSITION}


@dataclass(frozen=True)
class PlannedScan:
    """What is known of a scan, or of a part that is left out, before it is loaded. All ids are pseudonyms.

    Attributes:
        scan_id, series_id, study_id, patient_id: as in the manifest.
        dataset: pseudonym of the source that it comes from.
        modality, body_part, manufacturer, model: as in the manifest, 'unknown' where the header does not say.
        reason: why it is left out by its header alone; None where it is to be loaded.
        flags: what was noticed in headers.
        shape: (X, Y, Z) in voxels; None where it is left out.
        spacing_mm: voxel edges along X, Y, Z.
        affine_ras_mm: the 4x4 affine row by row.
        n_files: files that it is read from, or that are left out.
        n_volumes: volumes at the same place in its series.
    """

    scan_id: str
    series_id: str
    study_id: str
    patient_id: str
    dataset: str
    modality: str = "unknown"
    body_part: str = "unknown"
    manufacturer: str = "unknown"
    model: str = "unknown"
    reason: Reason | None = None
    flags: tuple[Flag, ...] = ()
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    affine_ras_mm: tuple[float, ...] | None = None
    n_files: int = 1
    n_volumes: int = 0


@dataclass(frozen=True)
class Trim:
    """What a scan lost while it was loaded.

    Attributes:
        reason, detail: why, as in `Rejected`.
        shape, affine_ras_mm, n_files: of the slices that remain.
        n_left_out: files of which no remaining slice is read.
        flags: what the scan is marked with.
    """

    reason: Reason
    detail: PathText
    shape: tuple[int, int, int]
    affine_ras_mm: tuple[float, ...]
    n_files: int
    n_left_out: int
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Outcome:
    """What loading a scan gave.

    Attributes:
        reason, detail: why it is left out, as in `Rejected`; reason is None where it is stored.
        flags: what was noticed in voxels.
        labels: class values of its label, 0 included; empty without one.
        content_hash: BLAKE2b of its voxels.
        label_reason, label_detail: why its label is left out, where it is.
        trim: slices that were left out, if any.
    """

    reason: Reason | None
    detail: PathText
    flags: tuple[Flag, ...] = ()
    labels: tuple[int, ...] = ()
    content_hash: str | None = None
    label_reason: Reason | None = None
    label_detail: PathText = ""
    trim: Trim | None = None

    @classmethod
    def of(cls, rejected: Rejected) -> "Outcome":
        """A scan that is left out."""
        return cls(rejected.reason, rejected.detail)


def manifest_row(
    planned: PlannedScan, outcome: Outcome | None, *, split: Split, dataset: str, is_duplicate: bool = False
) -> ManifestRow:
    """The row of a scan: the only place where plan and outcome become columns.

    Args:
        planned: the scan, or a part that is left out.
        outcome: what loading gave; None where it was not loaded.
        split: of its patient.
        dataset: name of its source, or ''.
        is_duplicate: whether another scan with the same voxels stays in the store instead.
    """
    # A scan that failed to load keeps the geometry and flags of its headers; one that is stored has those of its
    # voxels. A duplicate was loaded: it has all but its label, which the scan that stays in the store has if any.
    stored = outcome if outcome is not None and outcome.reason is None else None
    reason = outcome.reason if outcome is not None and outcome.reason else planned.reason
    if stored and is_duplicate:
        reason = Reason.DUPLICATE_CONTENT
    geometry = stored.trim if stored and stored.trim else planned
    return ManifestRow(
        scan_id=planned.scan_id,
        series_id=planned.series_id,
        study_id=planned.study_id,
        patient_id=planned.patient_id,
        modality=planned.modality,
        body_part=planned.body_part,
        manufacturer=planned.manufacturer,
        model=planned.model,
        status="rejected" if reason else "accepted",
        reason=reason,
        flags=tuple(dict.fromkeys((*planned.flags, *stored.flags))) if stored else planned.flags,
        shape=geometry.shape,
        spacing_mm=planned.spacing_mm,
        affine_ras_mm=geometry.affine_ras_mm,
        n_files=geometry.n_files,
        n_volumes=planned.n_volumes,
        split=split,
        content_hash=stored.content_hash if stored else None,
        labels=stored.labels if stored and not is_duplicate else (),
        dataset=dataset,
    )


PLANNED_SCANS = TypeAdapter(PlannedScan)
OUTCOMES = TypeAdapter(Outcome)
