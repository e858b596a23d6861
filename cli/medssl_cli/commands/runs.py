"""`medssl runs`: the runs below a folder and their status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medssl_cli.options import AsJson

if TYPE_CHECKING:
    from medssl.runs.run import Run


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder to search, with its subfolders.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """List the runs below a folder: kind, status, steps, loss, Dice.

    Example: medssl runs runs
    """
    from medssl.errors import DataError, UsageError
    from medssl.runs.run import Run

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder. Give the folder that holds your runs.")
    dated: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(folder.rglob("run.json")):
        try:
            run = Run.open(path.parent)
            dated.append((run.record.started.isoformat(), describe(run, below=folder)))
        except DataError as error:
            # A damaged run must not hide the others.
            typer.echo(str(error), err=True)
    entries = [entry for _, entry in sorted(dated, key=lambda pair: pair[0])]
    if as_json:
        typer.echo(json.dumps(entries, indent=1))
        return
    if not entries:
        typer.echo(
            f"No runs below {folder}. Start one with: medssl pretrain --cohort COHORT --task masked-volume --out RUN"
        )
        return
    _print(entries)


def describe(run: Run, *, below: Path) -> dict[str, Any]:
    """A run as JSON values: `steps` done of `total`, the latest `loss` and `dice`."""
    lines = run.metrics()
    latest = {key: value for line in lines for key, value in line.items()}
    silent = run.silent_for_s
    return {
        "run": str(run.folder.relative_to(below)),
        "kind": run.kind,
        "task": run.metadata.get("task") or run.metadata.get("init"),
        "status": f"running, silent for {silent / 3600:.1f} h" if silent else run.status,
        "steps": lines[-1]["step"] if lines else 0,
        "total": run.config.get("loop", {}).get("steps"),
        "loss": latest.get("train/loss"),
        "dice": latest.get("test/dice"),
        "started": run.record.started.isoformat(),
    }


def _print(entries: list[dict[str, Any]]) -> None:
    """Print aligned lines. The path comes last, so that a narrow terminal does not cut it."""
    header = ("kind", "from", "status", "steps", "loss", "test Dice", "started (UTC)", "run")
    rows = [header, *(_cells(entry) for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        entry["kind"],
        str(entry["task"] or ""),
        entry["status"],
        f"{entry['steps']}/{entry['total']}",
        "" if entry["loss"] is None else f"{entry['loss']:.4g}",
        "" if entry["dice"] is None else f"{entry['dice']:.3f}",
        entry["started"][:16].replace("T", " "),
        entry["run"],
    )
