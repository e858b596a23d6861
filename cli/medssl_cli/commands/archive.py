"""`medssl archive`: what an ingest came to, why a file was left out, and a second opinion."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medssl.cohort.difference import Difference
    from medssl.cohort.summary import CohortSummary

app = typer.Typer(help="Look at what ingest made of an archive.", no_args_is_help=True)


@app.command()
def report(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder.")],
    picture: Annotated[Path | None, typer.Option(help="PNG to draw; default COHORT/private/overview.png.")] = None,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Draw nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Count the verdicts, say what each option would gain, and draw the middle slices to look at before training.

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
    cohort: Annotated[Path, typer.Argument(help="Cohort folder.")],
    file_or_series: Annotated[str, typer.Argument(help="Path, file name, scan id, series id or series UID.")],
    show_paths: Annotated[
        bool, typer.Option("--show-paths", help="Name the files; do not paste that elsewhere.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say which rule fired for a file or a series, with the values.

    Example: medssl archive explain cohort IM0042.dcm
    """
    from dataclasses import asdict

    from medssl.archive.index.database import read_index
    from medssl.cohort.cohort import read_facts
    from medssl.ingestion.explain import explain as find

    read_facts(cohort)
    with read_index(cohort / "private") as index:
        found = find(index, file_or_series, show_paths=show_paths)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        typer.echo(f"{one.what} {one.name}: {one.verdict}")
        for line in (one.detail, one.action, *one.flags):
            if line:
                typer.echo(f"  {line}")


@app.command()
def label_names(cohort: Annotated[Path, typer.Argument(help="Cohort folder.")]) -> None:
    """List the names of structures in DICOM label objects as a CSV to edit and give to `ingest --label-names`.

    The names are free text of the archive and may name patients: keep the list where the archive is.
    Example: medssl archive label-names cohort > names.csv
    """
    import csv
    import sys

    from medssl.archive.index.database import read_index
    from medssl.archive.plan.labels import names_met
    from medssl.cohort.cohort import read_facts

    read_facts(cohort)
    with read_index(cohort / "private") as index:
        rows = names_met(index)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("name", "label", "objects"))
    writer.writerows(rows)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="Cohort folder or manifest file.")],
    after: Annotated[Path, typer.Argument(help="The other one, or a later state of it.")],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where they differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say which scans came, went or changed from one cohort to another, and which patients are in different splits.

    Example: medssl archive diff cohort-2019 cohort-2020
    """
    from medssl.cohort.difference import difference, read_pair

    found = difference(*read_pair(before, after))
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        _print_difference(found)
    if exit_code and not found.same:
        raise typer.Exit(1)


@app.command()
def verify(
    source: Annotated[list[Path], typer.Argument(help="Folders or files with DICOM series.")],
    against: Annotated[str, typer.Option(help="The other converter; dcm2niix is known.")] = "dcm2niix",
    series: Annotated[int, typer.Option(min=1, help="Most series to compare.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Convert a sample of series with medssl and with another converter, and compare voxels and affines.

    Exit code 1 when a series differs. Example: medssl archive verify /archive/2020 --against dcm2niix
    """
    from dataclasses import asdict

    from medssl.errors import UsageError
    from medssl.ingestion.settings import IngestSettings
    from medssl.ingestion.verify import verify_against_dcm2niix
    from medssl_cli.progress import LiveProgress

    if against != "dcm2niix":
        raise UsageError(f"--against {against} is not known. Use --against dcm2niix.")
    # The names in this report are not meant to last, so the key does not either.
    settings = IngestSettings(dry_run=True)
    with LiveProgress() as progress:
        found = verify_against_dcm2niix(source, series=series, seed=seed, settings=settings, progress=progress)
    differ = [one for one in found if not one.agrees]
    if as_json:
        typer.echo(json.dumps([{**asdict(one), "agrees": one.agrees} for one in found], indent=2))
    else:
        for one in differ:
            typer.echo(
                f"differs: {one.series_id}: medssl {one.ours}, dcm2niix {one.theirs}, the same {one.same}, "
                f"same voxels at another place {one.same_voxels_elsewhere} {one.note}"
            )
        typer.echo(f"{len(found) - len(differ)} of {len(found)} series agree in every voxel and affine")
    if differ or not found:
        raise typer.Exit(1)


def _print_difference(found: "Difference") -> None:
    def some(scans: Iterable[str]) -> str:
        named = list(scans)
        return f"{len(named)} ({', '.join(named[:3])}{', ...' if len(named) > 3 else ''})"

    patients = "{} and {} patients, {} in both".format(*found.patients)
    typer.echo("{} and {} accepted scans; ".format(*found.accepted) + patients)
    if found.same:
        typer.echo("the same scans, and the same left out")
    if found.added:
        typer.echo(f"added: {some(found.added)}")
    for reason in sorted(set(found.lost.values())):
        typer.echo(f"lost, {reason}: {some(scan for scan, why in found.lost.items() if why == reason)}")
    for aspect, scans in found.changed.items():
        typer.echo(f"other {aspect}: {some(scans)}")
    for reason, (was, now) in found.reasons.items():
        typer.echo(f"rejected, {reason}: {was} before, {now} after")
    if found.crossing:
        typer.echo(
            f"patients in different splits, so that one may test on what the other has seen: {some(found.crossing)}"
        )


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
            f"{modality}: finest edge {finest.least:.3g} to {finest.most:.3g} mm (median "
            f"{finest.middle:.3g}), coarsest {coarsest.least:.3g} to "
            f"{coarsest.most:.3g} mm (median {coarsest.middle:.3g}), shortest side "
            f"{shortest.least:.0f} to {shortest.most:.0f} voxels",
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
