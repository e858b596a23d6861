"""`medssl convert`: an archive as NIfTI files with pseudonyms."""

import json
from pathlib import Path
from typing import Annotated

import typer

from medssl_cli import archive_options
from medssl_cli.options import AsJson, without_none


def convert(
    source: archive_options.Sources,
    out: Annotated[Path, typer.Option(help="Folder for the NIfTI files; new or empty.")],
    manifest: Annotated[Path | None, typer.Option(help="Parquet file for the manifest.")] = None,
    modality: archive_options.Modality = None,
    min_slices: archive_options.MinSlices = None,
    include_derived: archive_options.IncludeDerived = None,
    volumes_per_series: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of volumes per time series; default: all.")
    ] = None,
    follow_symlinks: archive_options.FollowSymlinks = False,
    containers: archive_options.ReadContainers = False,
    key_file: archive_options.KeyFile = None,
    workers: archive_options.Workers = None,
    scheduler: archive_options.Scheduler = None,
    dry_run: archive_options.DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write every accepted scan as NIfTI on its native grid: rescaled, exact affine, one file per scan and time point.

    Example: medssl convert /archive/2020 --out nifti --manifest nifti.parquet
    """
    from medssl.ingestion.archive_to_nifti import convert as run_convert
    from medssl_cli.ingest_display import exit_without_scans, print_table
    from medssl_cli.progress import LiveProgress

    options = without_none(
        {
            "modality": modality,
            "min_slices": min_slices,
            "volumes_per_series": volumes_per_series or 1_000_000,
            "key_file": key_file,
            "workers": workers,
            "scheduler": scheduler,
            "include_derived": include_derived,
            "follow_symlinks": follow_symlinks or None,
            "containers": containers or None,
            "dry_run": dry_run or None,
        }
    )
    with LiveProgress() as progress:
        report = run_convert(
            source, out, settings=archive_options.ingest_settings(options), manifest=manifest, progress=progress
        )
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        print_table(report)
        typer.echo("dry run: nothing was written" if dry_run else f"scans: {out}")
    exit_without_scans(report)
