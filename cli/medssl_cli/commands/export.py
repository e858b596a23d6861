"""`medssl export`: a trained network as safetensors, MONAI bundle or nnU-Net weights."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Option(help="Run folder of `medssl pretrain` or `medssl finetune`.")],
    out: Annotated[Path, typer.Option(help="Folder to write; new or empty.")],
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="safetensors, monai-bundle or nnunet.")
    ] = "safetensors",
) -> None:
    """Write the weights of a run for other tools, and verify that the exported network reproduces the output.

    Example: medssl export --run runs/masked --format nnunet --out for_nnunet
    """
    from medssl.exchange.export import export as export_run

    exported = export_run(run, out, form=form)
    for note in exported.notes:
        typer.echo(note)
    for file in exported.files:
        typer.echo(f"  {file}")
    typer.echo(f"Exported: {exported.folder}")
