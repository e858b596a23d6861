"""The manifest: one row per scan or rejected series, as Parquet, with pseudonyms only."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medssl.cohort.reasons import Flag, Reason
from medssl.errors import DataError
from medssl.files import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
_ROWS_PER_GROUP = 2_000

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class ManifestRow:
    """What may be known outside the archive about one scan or rejected series.

    All ids are pseudonyms of lower-case letters, digits and '-', safe as file names. shape: (X, Y, Z) in voxels.
    affine_ras_mm: the 4x4 affine row by row. n_volumes: volumes at the same place in its series (time points,
    b-values). labels: the class values in its label, 0 included; empty means unlabelled. content_hash:
    BLAKE2b of the voxels, None before they were read. dataset: what its source was called by whoever ingested it,
    else empty.
    """

    scan_id: str
    series_id: str
    study_id: str
    patient_id: str
    modality: str
    body_part: str
    manufacturer: str
    model: str
    status: Literal["accepted", "rejected"]
    reason: str | None
    flags: tuple[str, ...]
    shape: tuple[int, int, int] | None
    spacing_mm: tuple[float, float, float] | None
    affine_ras_mm: tuple[float, ...] | None
    n_files: int
    n_volumes: int
    split: Split
    content_hash: str | None
    labels: tuple[int, ...]
    dataset: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the scan is in the store."""
        return self.status == "accepted"

    @property
    def labelled(self) -> bool:
        """Whether the scan is in the store with a label."""
        return self.accepted and bool(self.labels)

    def __post_init__(self) -> None:
        if self.reason is not None and self.reason not in Reason.__members__:
            raise ValueError(f"{self.reason!r} is no reason code")
        unknown = [flag for flag in self.flags if flag not in Flag.__members__]
        if unknown:
            raise ValueError(f"{unknown} are no flags")


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write rows to `path` as Parquet, in parts of constant memory, replacing the file only when it is complete."""
    import pyarrow.parquet as pq

    with atomic_write(path) as draft, pq.ParquetWriter(draft, _schema(), compression="zstd") as writer:
        batch: list[ManifestRow] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _ROWS_PER_GROUP:
                writer.write_table(_table(batch))
                batch = []
        writer.write_table(_table(batch))


def read_manifest(path: Path) -> tuple[ManifestRow, ...]:
    """Rows of a manifest in the order they were written.

    Raises DataError when the file is missing, damaged, or written by a newer medssl.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path} is no manifest that can be read. Run medssl ingest again; it rewrites the file."
        ) from error
    version = (table.schema.metadata or {}).get(b"medssl_schema", b"0").decode()
    if version != str(SCHEMA_VERSION):
        raise DataError(
            f"{path} has manifest schema {version}; this medssl reads {SCHEMA_VERSION}. Use the "
            "medssl that wrote it, or ingest again."
        )
    return tuple(_row(values) for values in table.to_pylist())


def _row(values: dict[str, Any]) -> ManifestRow:
    for name in ("flags", "shape", "spacing_mm", "affine_ras_mm", "labels"):
        values[name] = None if values[name] is None else tuple(values[name])
    return ManifestRow(**values)


def _table(rows: list[ManifestRow]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist([asdict(row) for row in rows], schema=_schema())


def _schema() -> "pa.Schema":
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    fields = {
        **dict.fromkeys(("scan_id", "series_id", "study_id", "patient_id"), text),
        **dict.fromkeys(("modality", "body_part", "manufacturer", "model", "status", "reason"), text),
        "flags": pa.list_(text),
        "shape": pa.list_(number),
        "spacing_mm": pa.list_(pa.float64()),
        "affine_ras_mm": pa.list_(pa.float64()),
        "n_files": number,
        "n_volumes": number,
        "split": text,
        "content_hash": text,
        "labels": pa.list_(number),
        "dataset": text,
    }
    return pa.schema(list(fields.items()), metadata={"medssl_schema": str(SCHEMA_VERSION)})
