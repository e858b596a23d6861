"""`medssl sync`: upload runs to MLflow."""

from pathlib import Path
from typing import Annotated

import typer


def sync(
    run: Annotated[list[Path], typer.Argument(help="Run folders.")],
    uri: Annotated[str | None, typer.Option(help="Tracking store; default: the store of the run.")] = None,
) -> None:
    """Upload runs to MLflow. Safe to repeat: nothing is sent twice.

    Example: medssl sync runs/masked-volume
    """
    from medssl.tracking.sync import sync as sync_run

    for folder in run:
        report = sync_run(folder, uri=uri)
        typer.echo(f"{folder}: {report.sent} values and pictures sent to {report.uri}")
