"""`medssl predict`: segment scans with a fine-tuned model."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    model: Annotated[Path, typer.Option(help="Run folder of `medssl finetune`.")],
    input_: Annotated[
        Path, typer.Option("--input", help="A NIfTI file, a DICOM series folder, or a folder of either.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the label files.")],
    modality: Annotated[
        str | None,
        typer.Option(
            help="CT, MR, ...: modality of scans that do not say it (NIfTI), or say one that the model was not trained "
            "on. Needed for NIfTI where it was trained on several."
        ),
    ] = None,
) -> None:
    """Write a label NIfTI on each scan's own grid.

    Example: medssl predict --model runs/masked-10 --input new_scans --out predictions
    """
    from medssl.downstream.predict import Prediction
    from medssl.downstream.predict import predict as run_prediction
    from medssl_cli.training import check_paths

    check_paths(model, input_)

    def show(prediction: Prediction) -> None:
        if prediction.output:
            typer.echo(f"{prediction.source} -> {prediction.output}")
        else:
            typer.echo(f"{prediction.source}: left out. {prediction.reason}", err=True)

    results = run_prediction(model, input_, out, modality=modality, progress=show)
    done = sum(result.output is not None for result in results)
    typer.echo(f"{done} of {len(results)} scans segmented: {out}")
