"""`medssl finetune`: a segmentation model from few labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from medssl.config import FinetuneConfig, Resolved


def finetune(
    out: Annotated[Path, typer.Option(help="Run folder to write; with --resume, the run to continue.")],
    cohort: Annotated[Path | None, typer.Option(help="Cohort made by `medssl ingest --labels`.")] = None,
    init: Annotated[str | None, typer.Option(help="A pretraining run to start from, or 'scratch'.")] = None,
    num_labelled: Annotated[str | None, typer.Option(help="How many labelled training scans to use, or 'all'.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Encoder of a start from scratch; a run brings its own.")] = None,
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

    Example: medssl finetune --cohort cohort --init runs/masked --num-labelled 10 --out runs/masked-10
    """
    from medssl.config import FinetuneConfig, resolve_config
    from medssl.downstream.finetune import finetune as run_finetuning
    from medssl_cli.progress import TrainingProgress
    from medssl_cli.training import check_paths, observer, resumed_files

    flags: dict[str, Any] = {
        "cohort": cohort,
        "init": init,
        "num_labelled": num_labelled,
        "encoder.name": encoder,
        "loop.steps": steps,
        "loop.seed": seed,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    files = [*resumed_files(out, resume=resume), *(config or [])]
    resolved = resolve_config(FinetuneConfig, files=files, settings=set_ or [], flags=given)
    settings = resolved.config
    check_paths(settings.cohort, *([] if settings.init == "scratch" else [Path(settings.init)]))
    _check_encoder(resolved)
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


def _check_encoder(resolved: "Resolved[FinetuneConfig]") -> None:
    """Raise UsageError where the command line asks for a network, and for a run that has another.

    What a file says does not count: config.yaml of an earlier fine-tuning names the default beside its run.
    """
    from medssl.encoders.weights import read_description
    from medssl.errors import UsageError

    init, encoder = resolved.config.init, resolved.config.encoder.name
    asked = {
        key: source
        for key, source in resolved.origins.items()
        if key.split(".")[0] == "encoder" and source.startswith("--")
    }
    if init == "scratch" or not asked:
        return
    brought = read_description(Path(init)).name
    if encoder != brought or not asked.keys() <= {"encoder", "encoder.name"}:
        option = next(iter(asked.values()))
        what = f"{option} {encoder}" if option == "--encoder" else option
        raise UsageError(
            f"{what} asks for a network, and the run {init} brings its own, a '{brought}'. Leave out one of them; "
            "--init scratch takes any encoder."
        )
