"""`medssl sync`: send to MLflow what it lacks of a run."""

from pathlib import Path
from typing import Annotated

import typer


def sync(
    run: Annotated[list[Path], typer.Argument(help="Run folders.")],
    uri: Annotated[str | None, typer.Option(help="Tracking store; without it the run's own.")] = None,
) -> None:
    """Replay runs to MLflow; what it has already is not sent again.

    Example: medssl sync runs/masked-volume
    """
    from medssl.tracking.sync import sync as replay

    for folder in run:
        report = replay(folder, uri=uri)
        typer.echo(f"{folder}: {report.sent} values and pictures sent to {report.uri}")
