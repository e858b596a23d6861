"""`medssl predict`: segment scans with a fine-tuned model."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer


def predict(
    model: Annotated[Path, typer.Option(help="Run folder of `medssl finetune`.")],
    input_: Annotated[
        Path, typer.Option("--input", help="A NIfTI file, a DICOM series folder, or a folder of either.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the label files, with the subfolders of the input.")],
    modality: Annotated[
        str | None,
        typer.Option(
            help="CT, MR, ...: modality to assume for NIfTI, and for DICOM of a modality that the model was not "
            "trained on. Required for NIfTI if the model was trained on several."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace label files that exist.")] = False,
) -> None:
    """Segment scans: the labels of the series INPUT/P1/SE2 go to OUT/P1/SE2_labels.nii.gz, on the grid of the scan.

    If a label file exists, the command stops before the first scan. Files in OUT are not used as input.

    Example: medssl predict --model runs/masked-10 --input new_scans --out predictions
    """
    from medssl.downstream.prediction import Prediction
    from medssl.downstream.prediction import predict as run_prediction
    from medssl_cli.training import check_paths

    check_paths(model, input_)

    def show(prediction: Prediction) -> None:
        if prediction.output:
            typer.echo(f"{prediction.source} -> {prediction.output}")
        else:
            typer.echo(f"{prediction.source}: left out. {prediction.reason}", err=True)

    results = run_prediction(
        model, input_, out, modality=modality, overwrite=overwrite, progress=show, note=partial(typer.echo, err=True)
    )
    done = sum(result.output is not None for result in results)
    typer.echo(f"{done} of {len(results)} scans segmented: {out}")
