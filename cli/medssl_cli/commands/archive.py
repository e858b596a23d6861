"""`medssl archive`: reports about an ingest, why a file was left out, and a comparison with dcm2niix."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl_cli.options import AsJson

if TYPE_CHECKING:
    from medssl.cohort.difference import ManifestDifference
    from medssl.cohort.summary import CohortSummary

app = typer.Typer(help="Inspect the result of an ingest.", no_args_is_help=True)

CohortFolder = Annotated[Path, typer.Argument(help="Cohort folder.")]


@app.command()
def report(
    cohort: CohortFolder,
    picture: Annotated[Path | None, typer.Option(help="PNG to draw; default COHORT/private/overview.png.")] = None,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Draw no picture.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count accepted and rejected scans, show what each option would bring back, and draw the middle slices.

    Example: medssl archive report cohort
    """
    from medssl.cohort.cohort import Cohort
    from medssl.cohort.summary import summarise

    opened = Cohort.open(cohort)
    summary = summarise(opened.rows)
    if as_json:
        typer.echo(json.dumps(summary.as_json(), indent=2))
    else:
        _print_summary(summary)
    if not no_picture and summary.accepted:
        from medssl.ingestion.overview import draw_overview

        path = draw_overview(opened, picture or cohort / "private" / "overview.png")
        typer.echo(f"picture: {path} (it shows patients)", err=as_json)


@app.command()
def explain(
    cohort: CohortFolder,
    file_or_series: Annotated[str, typer.Argument(help="Path, file name, scan id, series id or series UID.")],
    show_paths: Annotated[
        bool, typer.Option("--show-paths", help="Show file paths. They may name patients: do not share them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show which rule rejected or flagged a file or a series, with the values.

    Example: medssl archive explain cohort IM0042.dcm
    """
    from dataclasses import asdict

    from medssl.archive.index.database import read_index
    from medssl.cohort.cohort import read_description
    from medssl.ingestion.explanation import explain as explain_entry

    read_description(cohort)
    with read_index(cohort / "private") as index:
        explanations = explain_entry(index, file_or_series, show_paths=show_paths)
    if as_json:
        typer.echo(json.dumps([asdict(explanation) for explanation in explanations], indent=2))
        return
    for explanation in explanations:
        typer.echo(f"{explanation.what} {explanation.name}: {explanation.verdict}")
        for line in (explanation.detail, explanation.action, *explanation.flags):
            if line:
                typer.echo(f"  {line}")


@app.command()
def label_names(cohort: CohortFolder) -> None:
    """List the structure names in DICOM label objects as a CSV to edit and pass to `ingest --label-names`.

    The names are free text and may identify patients: keep the list where the archive is.

    Example: medssl archive label-names cohort > names.csv
    """
    import csv
    import sys

    from medssl.archive.index.database import read_index
    from medssl.archive.plan.labels import names_met
    from medssl.cohort.cohort import read_description

    read_description(cohort)
    with read_index(cohort / "private") as index:
        rows = names_met(index)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("name", "label", "objects"))
    writer.writerows(rows)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="Cohort folder or manifest file.")],
    after: Annotated[Path, typer.Argument(help="Cohort folder or manifest file to compare with.")],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")] = False,
    as_json: AsJson = False,
) -> None:
    """List scans that were added, lost or changed between two cohorts, and patients whose split differs.

    Example: medssl archive diff cohort-2019 cohort-2020
    """
    from medssl.cohort.difference import compare_manifests, read_pair

    changes = compare_manifests(*read_pair(before, after))
    if as_json:
        typer.echo(json.dumps(changes.as_json(), indent=2))
    else:
        _print_difference(changes)
    if exit_code and not changes.same:
        raise typer.Exit(1)


@app.command()
def verify(
    source: Annotated[list[Path], typer.Argument(help="Folders or files with DICOM series.")],
    against: Annotated[str, typer.Option(help="Converter to compare with: dcm2niix.")] = "dcm2niix",
    series: Annotated[int, typer.Option(min=1, help="Maximum number of series to compare.")] = 20,
    seed: Annotated[int, typer.Option(help="Random seed of the sample.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Convert a sample of series with medssl and with another converter, and compare voxels and affines.

    Exit code 1 if a series differs.

    Example: medssl archive verify /archive/2020 --against dcm2niix
    """
    from dataclasses import asdict

    from medssl.errors import UsageError
    from medssl.ingestion.settings import IngestSettings
    from medssl.ingestion.verify import verify_against_dcm2niix
    from medssl_cli.progress import LiveProgress

    if against != "dcm2niix":
        raise UsageError(f"--against is {against}, but the only known converter is dcm2niix. Use --against dcm2niix.")
    # The report's pseudonyms need not last, so the ephemeral key of a dry run is enough.
    settings = IngestSettings(dry_run=True)
    with LiveProgress() as progress:
        results = verify_against_dcm2niix(source, series=series, seed=seed, settings=settings, progress=progress)
    differing = [result for result in results if not result.agrees]
    if as_json:
        typer.echo(json.dumps([{**asdict(result), "agrees": result.agrees} for result in results], indent=2))
    else:
        for result in differing:
            typer.echo(
                f"differs: {result.series_id}: medssl {result.medssl}, dcm2niix {result.dcm2niix}, the same "
                f"{result.equal}, same voxels at another place {result.equal_voxels_only} {result.note}"
            )
        typer.echo(f"{len(results) - len(differing)} of {len(results)} series agree in every voxel and affine")
    if differing or not results:
        raise typer.Exit(1)


def _print_difference(changes: "ManifestDifference") -> None:
    patients = "{} and {} patients, {} in both".format(*changes.patients)
    typer.echo("{} and {} accepted scans; ".format(*changes.accepted) + patients)
    if changes.same:
        typer.echo("the same scans, and the same left out")
    if changes.added:
        typer.echo(f"added: {_count_and_examples(changes.added)}")
    for reason in sorted(set(changes.lost.values())):
        scans = [scan for scan, scan_reason in changes.lost.items() if scan_reason == reason]
        typer.echo(f"lost, {reason}: {_count_and_examples(scans)}")
    for aspect, changed in changes.changed.items():
        typer.echo(f"other {aspect}: {_count_and_examples(changed)}")
    for reason, (before, after) in changes.reasons.items():
        typer.echo(f"rejected, {reason}: {before} before, {after} after")
    if changes.crossing:
        examples = _count_and_examples(changes.crossing)
        typer.echo(f"patients in different splits, so that one may test on what the other has seen: {examples}")


def _count_and_examples(scans: Iterable[str]) -> str:
    names = list(scans)
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _print_summary(summary: "CohortSummary") -> None:
    from rich.console import Console
    from rich.table import Table

    from medssl.cohort.reasons import Reason

    console = Console()
    console.print(
        f"{summary.accepted} scans of {summary.patients} patients, {summary.labelled} with a label; "
        f"{summary.rejected} rows rejected"
    )
    for title, counts in (
        ("split", summary.splits), ("modality", summary.modalities), ("manufacturer", summary.manufacturers),
        ("body part", summary.body_parts), ("flag", summary.flags),
    ):  # fmt: skip
        if counts:
            console.print(f"{title}: " + ", ".join(f"{word} {count}" for word, count in counts.items()), soft_wrap=True)
    for modality, finest in summary.finest_mm.items():
        coarsest, shortest = summary.coarsest_mm[modality], summary.shortest_voxels[modality]
        console.print(
            f"{modality}: finest edge {finest.min:.3g} to {finest.max:.3g} mm (median "
            f"{finest.median:.3g}), coarsest {coarsest.min:.3g} to "
            f"{coarsest.max:.3g} mm (median {coarsest.median:.3g}), shortest side "
            f"{shortest.min:.0f} to {shortest.max:.0f} voxels",
            soft_wrap=True,
        )
    if summary.reasons:
        table = Table("reason", "rows", "what it means")
        table.add_column("for example", no_wrap=True)
        for code, count in summary.reasons.items():
            table.add_row(code, str(count), Reason(code).meaning, "\n".join(summary.examples[code][:1]))
        console.print(table)
    for option, count in summary.gains.items():
        console.print(f"{option} would bring back up to {count}")
