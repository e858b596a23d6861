"""`medssl ingest`: from an archive to a cohort."""

import json
from pathlib import Path
from typing import Annotated

import typer

from medssl_cli import archive_options
from medssl_cli.options import AsJson, without_none


def ingest(
    source: archive_options.Sources,
    out: Annotated[Path, typer.Option(help="Cohort folder to make or continue.")],
    label_dir: Annotated[
        Path | None, typer.Option(help="Folder with label files that have the names of their images.")
    ] = None,
    label_names: Annotated[
        Path | None, typer.Option(help="CSV with columns name,label for the structures of DICOM SEG and RTSTRUCT.")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="CSV with columns file,split that overrides the random split.")
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV with columns patient,same_as for patients with several ids.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name of the sources in the manifest: letters, digits, '.', '_', '-'. It is not pseudonymised."
        ),
    ] = None,
    modality: archive_options.Modality = None,
    min_slices: archive_options.MinSlices = None,
    include_derived: archive_options.IncludeDerived = None,
    volumes_per_series: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of volumes per time series; initially 4.")
    ] = None,
    follow_symlinks: archive_options.FollowSymlinks = False,
    containers: archive_options.ReadContainers = False,
    key_file: archive_options.KeyFile = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the split.")] = None,
    spacing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODALITY=]X,Y,Z|native",
            help="Target voxel spacing in mm, repeatable for several modalities; default: native. Thick slices are "
            "not resampled to thinner ones.",
        ),
    ] = None,
    packing: Annotated[
        str | None,
        typer.Option(help="Compression of the store: lz4, or none (faster from memory, two to three times the disk)."),
    ] = None,
    workers: archive_options.Workers = None,
    scheduler: archive_options.Scheduler = None,
    dry_run: archive_options.DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Import all usable scans of an archive into a cohort and report why the others were rejected.

    Run it again to continue or to add new scans; options that are left out keep their earlier values.

    Exit code 1 if no scan was accepted.

    Example: medssl ingest /archive/2019 /archive/2020 --out cohort
    """
    from medssl.ingestion.archive_to_cohort import ingest as run_ingest
    from medssl_cli.ingest_display import exit_without_scans, print_report
    from medssl_cli.progress import LiveProgress

    options = without_none({
        "dataset": dataset, "label_dir": label_dir, "label_names": label_names, "splits": splits, "patients": patients,
        "modality": modality, "min_slices": min_slices, "volumes_per_series": volumes_per_series,
        "key_file": key_file, "seed": seed, "policy": archive_options.store_policy(spacing or [], packing),
        "workers": workers, "include_derived": include_derived,
        "follow_symlinks": follow_symlinks or None, "containers": containers or None,
        "scheduler": scheduler, "dry_run": dry_run or None,
    })  # fmt: skip
    with LiveProgress() as progress:
        report = run_ingest(source, out, settings=archive_options.ingest_settings(options), progress=progress)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        print_report(report, None if dry_run else out)
    exit_without_scans(report)
