"""Options that mean the same in every command that reads an archive."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from medssl.ingestion.settings import IngestSettings
    from medssl.store.policy import StorePolicy

Sources = Annotated[
    list[str], typer.Argument(help="Folders or files with NIfTI or DICOM scans, or URLs such as s3://bucket/folder.")
]
Modality = Annotated[str | None, typer.Option(help="Modality of the NIfTI scans in these sources: CT, MR, PT.")]
MinSlices = Annotated[int | None, typer.Option(min=1, help="Minimum number of slices of a DICOM scan; initially 8.")]
IncludeDerived = Annotated[
    bool | None,
    typer.Option("--include-derived/--no-include-derived", help="Accept projections, maps and phase images?"),
]
FollowSymlinks = Annotated[bool, typer.Option("--follow-symlinks", help="Follow links that stay inside a source.")]
ReadContainers = Annotated[bool, typer.Option("--containers", help="Read the members of zip, tar and gzip files.")]
KeyFile = Annotated[Path | None, typer.Option(help="Pseudonym key; default ~/.medssl/pseudonym.key.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Worker processes; default: one per core.")]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler to run the work on, such as tcp://node1:8786.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Report from the headers only; write nothing.")]


def store_policy(spacings: Sequence[str], packing: str | None) -> "StorePolicy | None":
    """Store policy from the options, None if neither was given. Raises ConfigError for an invalid value."""
    from pydantic import ValidationError

    from medssl.errors import ConfigError
    from medssl.store.policy import StorePolicy

    values: dict[str, Any] = {"packing": packing} if packing is not None else {}
    for spacing in spacings:
        modality, equals, edges = spacing.rpartition("=")
        target = edges if edges == "native" else tuple(edges.split(","))
        if equals:
            values.setdefault("spacing_mm", {})[modality.upper()] = target
        else:
            values["other_spacing_mm"] = target
    try:
        return StorePolicy(**values) if values else None
    except ValidationError as error:
        if "packing" in error.errors()[0]["loc"]:
            raise ConfigError(f"--packing is {packing!r}. Write lz4 or none.") from error
        raise ConfigError(
            f"--spacing {' --spacing '.join(spacings)} cannot be read. Write three edges in mm between 0.05 and 50, as "
            "in --spacing 1,1,1 or --spacing CT=1.5,1.5,2, or native."
        ) from error


def ingest_settings(options: dict[str, Any]) -> "IngestSettings":
    """Settings of ingest from options. Raises ConfigError that names the invalid option."""
    from pydantic import ValidationError

    from medssl.errors import ConfigError
    from medssl.ingestion.settings import IngestSettings

    try:
        return IngestSettings(**options)
    except ValidationError as error:
        problem = error.errors()[0]
        option = ".".join(map(str, problem["loc"])) or "settings"
        raise ConfigError(f"{option}: {problem['msg']}, got {problem['input']!r}. See medssl ingest --help.") from error
