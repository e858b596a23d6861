"""Options that mean the same in every command that reads an archive."""

from pathlib import Path
from typing import Annotated

import typer

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
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
