"""Options of every command that reads an archive: they mean the same in each."""

from pathlib import Path
from typing import Annotated

import typer

Sources = Annotated[list[Path], typer.Argument(help="Folders or files with NIfTI or DICOM scans.")]
Modality = Annotated[str | None, typer.Option(help="Modality of the NIfTI scans in these sources: CT, MR, PT.")]
MinSlices = Annotated[int | None, typer.Option(min=1, help="Fewest slices of a DICOM scan; 8 at first.")]
IncludeDerived = Annotated[
    bool | None,
    typer.Option("--include-derived/--no-include-derived", help="Keep projections, maps and phase images, or not."),
]
FollowSymlinks = Annotated[bool, typer.Option("--follow-symlinks", help="Follow links that stay inside a source.")]
ReadContainers = Annotated[bool, typer.Option("--containers", help="Read the members of zip, tar and gzip files.")]
KeyFile = Annotated[Path | None, typer.Option(help="Pseudonym key; default ~/.medssl/pseudonym.key.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes; as many as cores where it is left out.")]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler whose workers do the work, e.g. tcp://node1:8786.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Report from the headers; write nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
