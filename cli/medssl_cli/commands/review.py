"""`medssl review`: the review page of a run, and the reviewer's decision."""

from pathlib import Path
from typing import Annotated

import typer


def review(
    folder: Annotated[Path, typer.Argument(help="Run folder, or folder of `medssl label-efficiency`.")],
    accept: Annotated[bool, typer.Option("--accept", help="Record that the encoder may be used.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Record that the encoder may not be used.")] = False,
    note: Annotated[
        str | None, typer.Option(help="Reason. It is sent to MLflow unchanged: do not name patients.")
    ] = None,
) -> None:
    """Write review.html. With --accept or --reject, record the decision in the run and, at the next sync, in MLflow.

    Example: medssl review runs/masked --accept --note "learned, +2 Dice at 5 labels"
    """
    from medssl.errors import UsageError
    from medssl.tracking.answer import record_answer
    from medssl.tracking.review import write_review

    if accept and reject:
        raise UsageError("--accept and --reject contradict each other. Choose one.")
    if accept or reject or note:
        review = "accepted" if accept else "rejected" if reject else None
        record_answer(folder, review=review, note=note)
    typer.echo(f"review: {write_review(folder)}")
    if accept or reject or note:
        typer.echo(f"next: medssl sync {folder}")
