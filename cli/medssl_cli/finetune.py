"""`medssl finetune`: a segmentation model from few labels."""

from pathlib import Path
from typing import Annotated, Any

import typer


def finetune(
    out: Annotated[Path, typer.Option(help="Run folder to write; with --resume, the run to continue.")],
    cohort: Annotated[Path | None, typer.Option(help="Cohort made by `medssl ingest --labels`.")] = None,
    init: Annotated[str | None, typer.Option(help="A pretraining run to start from, or 'scratch'.")] = None,
    labels: Annotated[str | None, typer.Option(help="How many labelled training scans to use, or 'all'.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Encoder when starting from scratch.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed: which scans are used, the new weights, the augmentation.")
    ] = None,
    config: Annotated[list[Path] | None, typer.Option(help="YAML file; later files win. Repeatable.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as optim.lr=3e-4. Repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
) -> None:
    """Train a segmentation model on few labelled scans and score it on the test split.

    Example: medssl finetune --cohort cohort --init runs/masked --labels 10 --out runs/masked-10
    """
    from medssl.config import FinetuneConfig, load_config
    from medssl.downstream.finetune import finetune as run_finetuning
    from medssl_cli.progress import TrainingProgress
    from medssl_cli.training import check_paths, observer, resumed_files

    flags: dict[str, Any] = {
        "cohort": cohort,
        "init": init,
        "labels": labels,
        "encoder.name": encoder,
        "loop.steps": steps,
        "loop.seed": seed,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    files = [*resumed_files(out, resume=resume), *(config or [])]
    settings = load_config(FinetuneConfig, files=files, settings=set_ or [], flags=given)
    check_paths(settings.cohort, *([] if settings.init == "scratch" else [Path(settings.init)]))
    evaluation = run_finetuning(
        settings,
        out,
        resume=resume,
        progress=TrainingProgress(
            f"fine-tune from {'scratch' if settings.init == 'scratch' else Path(settings.init).name}"
        ),
        observe=observer(settings.tracking),
    )
    if evaluation:
        typer.echo("\n".join(evaluation.sentences()))
    typer.echo(f"model: {out}\nnext: medssl predict --model {out} --input SCAN --out predictions")
