"""How an ingest looks in the terminal: one live line, then a table of verdicts."""

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from medssl.archive.report import IngestReport

_PLAIN_EVERY_S = 10.0


class LiveProgress:
    """A line on stderr that follows ingest; plain lines every ten seconds where nobody can watch it live."""

    def __init__(self) -> None:
        self._live: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._printed_s = time.monotonic()

    def __enter__(self) -> "LiveProgress":
        if sys.stderr.isatty():
            self._live = _bars()
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, stage: str, done: int, total: int | None, note: str) -> None:
        """`done` of `total` things of a stage are over."""
        if self._live is not None:
            if stage not in self._bars:
                self._bars[stage] = self._live.add_task(stage, total=total, note=note)
            self._live.update(self._bars[stage], completed=done, total=total, note=note)
        elif time.monotonic() - self._printed_s >= _PLAIN_EVERY_S:
            self._printed_s = time.monotonic()
            of = f" of {total}" if total is not None else ""
            print(f"{stage}: {done}{of} ({note})", file=sys.stderr, flush=True)


def print_report(report: "IngestReport", cohort: Path | None) -> None:
    """Counts per verdict, and what comes next. Shows pseudonyms only."""
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
    """Counts per verdict."""
    from rich.console import Console
    from rich.table import Table

    from medssl.archive.reasons import Flag, Reason

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


def _bars() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    return Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
