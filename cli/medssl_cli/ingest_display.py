"""The report of an ingest in the terminal: a table of results and the next command."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from medssl.ingestion.report import IngestReport


def print_report(report: "IngestReport", cohort: Path | None) -> None:
    """Print the table and the next command. Shows pseudonyms only."""
    print_table(report)
    if cohort is None:
        typer.echo("dry run: nothing was written")
        return
    if report.examples:
        example = next(iter(report.examples.values()))[0]
        typer.echo(f"why one was left out: medssl archive explain {cohort} {example}")
    if report.n_scans == 0:
        return
    typer.echo(
        f"cohort: {cohort}\nnext: medssl pretrain --cohort {cohort} --task masked-volume --out runs/masked-volume"
    )


def print_table(report: "IngestReport") -> None:
    """Print counts per result, with what each means and the notices of the ingest."""
    from rich.console import Console
    from rich.table import Table

    from medssl.cohort.reasons import Flag, Reason

    table = Table(title=f"{report.n_files} files, {report.elapsed_s:g} s")
    for column in ("verdict", "count", "what it means"):
        table.add_column(column, justify="right" if column == "count" else "left")
    by_split = ", ".join(f"{count} {split}" for split, count in report.splits.items())
    table.add_row("accepted", str(report.n_scans), f"{report.n_labelled} with a label; {by_split or 'none'}")
    for code, count in report.reasons.items():
        reason = Reason(code)
        table.add_row(code, str(count), f"{reason.meaning} {reason.action}")
    for code, count in report.flags.items():
        table.add_row(code, str(count), Flag(code).meaning, style="dim")
    Console().print(table)
    for notice in report.notices:
        typer.echo(f"note: {notice}")


def exit_without_scans(report: "IngestReport") -> None:
    """Exit with 1 if no scan was accepted."""
    if report.n_scans == 0:
        typer.echo(
            "Error: no scan was accepted. The reasons are counted above; docs/archive.md explains each.", err=True
        )
        raise typer.Exit(1)
