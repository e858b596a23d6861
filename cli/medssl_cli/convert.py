"""`medssl convert`: from an archive to NIfTI files under pseudonyms."""

import json
from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[list[Path], typer.Argument(help="Folders or files with NIfTI or DICOM scans.")],
    out: Annotated[Path, typer.Option(help="Folder for the NIfTI files; new or empty.")],
    manifest: Annotated[Path | None, typer.Option(help="Parquet file for the manifest.")] = None,
    modality: Annotated[str | None, typer.Option(help="Modality of NIfTI scans: CT, MR, PT.")] = None,
    min_slices: Annotated[int | None, typer.Option(min=1, help="Fewest slices of a DICOM scan.")] = None,
    include_derived: Annotated[
        bool, typer.Option("--include-derived", help="Keep projections, maps and phase images.")
    ] = False,
    volumes_per_series: Annotated[int | None, typer.Option(min=1, help="Most volumes of one time series; all.")] = None,
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Follow links that stay inside a source.")
    ] = False,
    archives: Annotated[bool, typer.Option("--archives", help="Look into zip, tar and gzip files.")] = False,
    key_file: Annotated[Path | None, typer.Option(help="Pseudonym key; default ~/.medssl/pseudonym.key.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; as many as cores where it is left out.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler whose workers do the work, e.g. tcp://node1:8786.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report from the headers; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write every accepted scan as NIfTI on its own grid: rescaled, exact affine, one file per scan and time point.

    Example: medssl convert /archive/2020 --out nifti --manifest nifti.parquet
    """
    from medssl.store.convert import convert as run_convert
    from medssl_cli.ingest import finish, given_options, ingest_settings
    from medssl_cli.ingest_display import LiveProgress, print_table

    given = given_options(
        modality=modality,
        min_slices=min_slices,
        volumes_per_series=volumes_per_series or 1_000_000,
        key_file=key_file,
        workers=workers,
        scheduler=scheduler,
        include_derived=include_derived or None,
        follow_symlinks=follow_symlinks or None,
        archives=archives or None,
        dry_run=dry_run or None,
    )
    with LiveProgress() as progress:
        report = run_convert(source, out, settings=ingest_settings(given), manifest=manifest, progress=progress)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        print_table(report)
        typer.echo("dry run: nothing was written" if dry_run else f"scans: {out}")
    finish(report)
