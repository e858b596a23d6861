"""`medssl ingest`: from an archive to a cohort."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medssl_cli.archive_options import (
    AsJson,
    DryRun,
    FollowSymlinks,
    IncludeDerived,
    KeyFile,
    MinSlices,
    Modality,
    ReadContainers,
    Scheduler,
    Sources,
    Workers,
)

if TYPE_CHECKING:
    from medssl.ingestion.report import IngestReport
    from medssl.ingestion.settings import IngestSettings
    from medssl.store.policy import StorePolicy


def ingest(
    source: Sources,
    out: Annotated[Path, typer.Option(help="Cohort folder to make or continue.")],
    label_dir: Annotated[Path | None, typer.Option(help="Folder with label files named like their images.")] = None,
    label_names: Annotated[
        Path | None, typer.Option(help="CSV with columns name,label: structures of DICOM SEG and RTSTRUCT to labels.")
    ] = None,
    splits: Annotated[Path | None, typer.Option(help="CSV with columns file,split that overrides the split.")] = None,
    patients: Annotated[Path | None, typer.Option(help="CSV with columns patient,same_as: ids of one patient.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name of the sources in the manifest, of letters, digits, '.', '_', '-'. It leaves the archive."
        ),
    ] = None,
    modality: Modality = None,
    min_slices: MinSlices = None,
    include_derived: IncludeDerived = None,
    volumes_per_series: Annotated[
        int | None, typer.Option(min=1, help="Most volumes kept of one time series; 4 at first.")
    ] = None,
    follow_symlinks: FollowSymlinks = False,
    containers: ReadContainers = False,
    key_file: KeyFile = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the split.")] = None,
    spacing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODALITY=]X,Y,Z|native",
            help="Voxel edges in mm of what is stored; repeat it for several modalities. Each scan's own by default. "
            "Thick slices stay thick.",
        ),
    ] = None,
    packing: Annotated[
        str | None, typer.Option(help="lz4, or none: faster from memory, two to three times the disk.")
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bring every scan of an archive into a cohort, and say why each other one was left out.

    Run it again to continue, or to add what is new; options that are left out then keep their meaning. Exit code 1 when
    no scan was accepted.

    Example: medssl ingest /archive/2019 /archive/2020 --out cohort
    """
    from medssl.ingestion.archive_to_cohort import ingest as run_ingest
    from medssl_cli.ingest_display import print_report
    from medssl_cli.progress import LiveProgress

    given = given_options(
        dataset=dataset, label_dir=label_dir, label_names=label_names, splits=splits, patients=patients,
        modality=modality, min_slices=min_slices, volumes_per_series=volumes_per_series,
        key_file=key_file, seed=seed, policy=store_policy(spacing or [], packing),
        workers=workers, include_derived=include_derived,
        follow_symlinks=follow_symlinks or None, containers=containers or None,
        scheduler=scheduler, dry_run=dry_run or None,
    )  # fmt: skip
    with LiveProgress() as progress:
        report = run_ingest(source, out, settings=ingest_settings(given), progress=progress)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        print_report(report, None if dry_run else out)
    finish(report)


def given_options(**options: Any) -> dict[str, Any]:
    """Options that somebody gave."""
    return {name: value for name, value in options.items() if value is not None}


def store_policy(spacings: Sequence[str], packing: str | None) -> "StorePolicy | None":
    """The store policy that options ask for; None when they ask for nothing. Raises ConfigError with what is wrong."""
    from pydantic import ValidationError

    from medssl.errors import ConfigError
    from medssl.store.policy import StorePolicy

    given: dict[str, Any] = {"packing": packing} if packing is not None else {}
    for word in spacings:
        modality, equals, edges = word.rpartition("=")
        target = edges if edges == "native" else tuple(edges.split(","))
        if equals:
            given.setdefault("spacing_mm", {})[modality.upper()] = target
        else:
            given["other_spacing_mm"] = target
    try:
        return StorePolicy(**given) if given else None
    except ValidationError as error:
        if "packing" in error.errors()[0]["loc"]:
            raise ConfigError(f"--packing is {packing!r}. Write lz4 or none.") from error
        raise ConfigError(
            f"--spacing {' --spacing '.join(spacings)} cannot be read. Write three edges in mm between 0.05 and 50, as "
            "in --spacing 1,1,1 or --spacing CT=1.5,1.5,2, or native."
        ) from error


def ingest_settings(given: dict[str, Any]) -> "IngestSettings":
    """Settings of ingest from options. Raises ConfigError with the option that is wrong."""
    from pydantic import ValidationError

    from medssl.errors import ConfigError
    from medssl.ingestion.settings import IngestSettings

    try:
        return IngestSettings(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "settings"
        raise ConfigError(f"{place}: {problem['msg']}, got {problem['input']!r}. See medssl ingest --help.") from error


def finish(report: "IngestReport") -> None:
    """Exit with 1 when no scan was accepted."""
    if report.n_scans == 0:
        typer.echo(
            "Error: no scan was accepted. The reasons are counted above; docs/archive.md explains each.", err=True
        )
        raise typer.Exit(1)
