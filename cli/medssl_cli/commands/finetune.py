"""`medssl finetune`: a segmentation model from few labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl_cli.options import ConfigFiles, Overrides, Resume, RunFolder, Steps, without_none

if TYPE_CHECKING:
    from medssl.config import FinetuneConfig, Resolved


def finetune(
    out: RunFolder,
    cohort: Annotated[Path | None, typer.Option(help="Cohort made by `medssl ingest --label-dir`.")] = None,
    init: Annotated[str | None, typer.Option(help="Initialisation: a pretraining run, or 'scratch'.")] = None,
    num_labelled: Annotated[
        str | None, typer.Option(help="Number of labelled training scans to use, or 'all'.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder to train from scratch; a pretraining run has its own.")
    ] = None,
    steps: Steps = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Random seed of the choice of labelled scans, the new weights and the augmentation."),
    ] = None,
    config_files: ConfigFiles = None,
    overrides: Overrides = None,
    resume: Resume = False,
) -> None:
    """Train a segmentation model on a few labelled scans and evaluate it on the test split.

    Example: medssl finetune --cohort cohort --init runs/masked --num-labelled 10 --out runs/masked-10
    """
    from medssl.api import finetune as run_finetuning
    from medssl.config import FinetuneConfig, resolve_config
    from medssl_cli.progress import TrainingProgress
    from medssl_cli.training import check_paths, config_of_resumed

    flags = without_none(
        {
            "cohort": cohort,
            "init": init,
            "num_labelled": num_labelled,
            "encoder.name": encoder,
            "loop.steps": steps,
            "loop.seed": seed,
        }
    )
    files = [*config_of_resumed(out, resume=resume), *(config_files or [])]
    resolved = resolve_config(FinetuneConfig, files=files, settings=overrides or [], flags=flags)
    config = resolved.config
    pretraining = None if config.init == "scratch" else Path(config.init)
    check_paths(config.cohort, *([pretraining] if pretraining else []))
    _check_encoder(resolved)
    model = run_finetuning(
        config,
        out,
        resume=resume,
        progress=TrainingProgress(f"fine-tune from {pretraining.name if pretraining else 'scratch'}"),
    )
    if model.evaluation:
        typer.echo("\n".join(model.evaluation.sentences()))
    typer.echo(f"model: {out}\nnext: medssl predict --model {out} --input SCAN --out predictions")


def _check_encoder(resolved: "Resolved[FinetuneConfig]") -> None:
    """Raise UsageError if the command line chooses another network than the pretraining run has.

    Files may: config.yaml of an earlier fine-tuning names the default encoder beside its pretraining run.
    """
    from medssl.encoders.weights import read_description
    from medssl.errors import UsageError

    init, encoder = resolved.config.init, resolved.config.encoder.name
    options = {
        key: origin
        for key, origin in resolved.origins.items()
        if key.split(".")[0] == "encoder" and origin.startswith("--")
    }
    if init == "scratch" or not options:
        return
    pretrained = read_description(Path(init)).name
    if encoder != pretrained or not options.keys() <= {"encoder", "encoder.name"}:
        option = next(iter(options.values()))
        choice = f"{option} {encoder}" if option == "--encoder" else option
        raise UsageError(
            f"{choice} chooses a network, but --init {init} already has one, a '{pretrained}'. Leave out one of them; "
            "--init scratch takes any encoder."
        )
