"""The manifest: one row per scan or rejected series, as Parquet, with pseudonyms only."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from medssl.cohort.reasons import Flag, Reason
from medssl.errors import DataError
from medssl.files import atomic_write
from medssl.formats import check_format

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "2"
_ROWS_PER_GROUP = 2_000

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class ManifestRow:
    """What may be known outside the archive about one scan or rejected series.

    All ids are pseudonyms of lower-case letters, digits and '-', safe as file names.

    Attributes:
        scan_id: names the scan in the store too.
        series_id, study_id, patient_id: what it belongs to.
        modality: CT, MR, PT, or as the header of a rejected series has it.
        body_part, manufacturer, model: words of fixed lists, else 'other' or 'unknown'.
        status: whether it is in the store.
        reason: why it is not.
        flags: what was noticed, repaired or split.
        shape: (X, Y, Z) in voxels, on its native grid.
        spacing_mm: voxel edges along X, Y, Z.
        affine_ras_mm: the 4x4 affine row by row.
        n_files: files that it is read from.
        n_volumes: volumes at the same place in its series (time points, b-values).
        split: of its patient.
        content_hash: BLAKE2b of the voxels, None before they were read.
        labels: the class values in its label, 0 included; empty means unlabelled.
        dataset: what its source was called by whoever ingested it, else empty.
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
            raise ValueError(f"{self.reason!r} is not a reason code")
        unknown = [flag for flag in self.flags if flag not in Flag.__members__]
        if unknown:
            raise ValueError(f"{unknown} are not flags")


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write rows to `path` as Parquet, in parts of constant memory, replacing the file only when it is complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    with atomic_write(path) as draft, pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        remaining = iter(rows)
        while True:
            batch = [vars(row) for row in itertools.islice(remaining, _ROWS_PER_GROUP)]
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            if len(batch) < _ROWS_PER_GROUP:
                return


def read_manifest(path: Path) -> tuple[ManifestRow, ...]:
    """Rows of a manifest in the order they were written.

    Raises:
        DataError: when the file is missing, damaged, or of another format.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path} cannot be read as a manifest. Run medssl ingest again, which rewrites the file."
        ) from error
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    found, writer = metadata.get("medssl_schema"), metadata.get("medssl")
    check_format(path, found, FORMAT, writer=writer, remedy="ingest into a new folder")
    return tuple(_row(values) for values in table.to_pylist())


def _row(values: dict[str, Any]) -> ManifestRow:
    columns: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return ManifestRow(**columns)


def _schema() -> "pa.Schema":
    """One column for each field of a row, by its type."""
    import pyarrow as pa

    columns = [(name, _column_type(hint)) for name, hint in get_type_hints(ManifestRow).items()]
    return pa.schema(columns, metadata={"medssl_schema": FORMAT, "medssl": version("medssl")})


def _column_type(hint: Any) -> "pa.DataType":
    import pyarrow as pa

    arguments = get_args(hint)
    if get_origin(hint) is UnionType:  # X | None
        return _column_type(arguments[0])
    if get_origin(hint) is tuple:
        return pa.list_(_column_type(arguments[0]))
    if get_origin(hint) is Literal:
        return pa.string()
    return {str: pa.string(), int: pa.int32(), float: pa.float64()}[hint]
