"""`medssl export`: hand a trained network over to MONAI, to nnU-Net, or to anybody who reads safetensors."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Option(help="Run folder of `medssl pretrain` or `medssl finetune`.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist, or be empty.")],
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="safetensors, monai-bundle or nnunet.")
    ] = "safetensors",
) -> None:
    """Write the weights of a run for others to use, and prove that they give the same output there.

    Example: medssl export --run runs/masked --format nnunet --out for_nnunet
    """
    from medssl.exchange.export import export as write

    done = write(run, out, form=form)
    for note in done.notes:
        typer.echo(note)
    for file in done.files:
        typer.echo(f"  {file}")
    typer.echo(f"Exported: {done.folder}")
