"""`medssl embed`: one feature vector per scan."""

from pathlib import Path
from typing import Annotated

import typer


def embed(
    run: Annotated[Path, typer.Option(help="Run folder of `medssl pretrain`.")],
    cohort: Annotated[Path, typer.Option(help="Cohort made by `medssl ingest`; it may differ from that of the run.")],
    out: Annotated[Path, typer.Option(help="Table to write: .parquet or .csv.")],
) -> None:
    """Write one feature vector per scan, for retrieval, UMAP and linear probes.

    Example: medssl embed --run runs/masked --cohort cohort --out features.parquet
    """
    from medssl.downstream.embed import embed_scans, write_embeddings
    from medssl.errors import UsageError
    from medssl.files import prepare_new_file
    from medssl_cli.progress import LiveProgress

    if out.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--out is '{out.name}'. Choose a name that ends in .parquet or .csv.")
    prepare_new_file(out)
    with LiveProgress() as live:
        embeddings = embed_scans(run, cohort, progress=live)
    write_embeddings(embeddings, out)
    for scan_id, reason in embeddings.failed.items():
        typer.echo(f"{scan_id}: {reason}", err=True)
    count, features = embeddings.vectors.shape
    typer.echo(f"{count} of {count + len(embeddings.failed)} scans, {features} features each: {out}")
    if embeddings.failed:
        raise typer.Exit(1)
