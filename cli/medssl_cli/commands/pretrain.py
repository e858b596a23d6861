"""`medssl pretrain`: train an encoder with one pretext task."""

from pathlib import Path
from typing import Annotated

import typer

from medssl_cli.options import ConfigFiles, EncoderName, Overrides, PluginFiles, Resume, RunFolder, Steps, without_none


def pretrain(
    out: RunFolder,
    cohort: Annotated[Path | None, typer.Option(help="Cohort made by `medssl ingest`.")] = None,
    task: Annotated[str | None, typer.Option(help="Pretext task; `medssl plugins list` names them.")] = None,
    encoder: EncoderName = None,
    steps: Steps = None,
    batch_size: Annotated[int | None, typer.Option(help="Regions per optimiser step, over all devices.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    devices: Annotated[str | None, typer.Option(help="Number of GPUs, or auto.")] = None,
    config_files: ConfigFiles = None,
    overrides: Overrides = None,
    plugin_files: PluginFiles = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a few steps, estimate time and memory, and write no run.")
    ] = False,
) -> None:
    """Pretrain an encoder on a cohort, without labels.

    Example: medssl pretrain --cohort cohort --task masked-volume --out runs/masked --steps 20000
    """
    from medssl.api import pretrain as run_pretraining
    from medssl.config import PretrainConfig, load_config
    from medssl_cli.progress import TrainingProgress, process_rank
    from medssl_cli.training import check_paths, config_of_resumed

    flags = without_none(
        {
            "cohort": cohort,
            "task.name": task,
            "encoder.name": encoder,
            "loop.steps": steps,
            "loop.batch_size": batch_size,
            "loop.seed": seed,
            "loop.devices": devices,
            "plugins": [path.absolute() for path in plugin_files] if plugin_files else None,
        }
    )
    files = [*config_of_resumed(out, resume=resume), *(config_files or [])]
    config = load_config(PretrainConfig, files=files, settings=overrides or [], flags=flags)
    check_paths(config.cohort)
    if dry_run:
        from medssl_cli.dry_run import describe_pretraining

        describe_pretraining(config)
        return
    run_pretraining(config, out, resume=resume, progress=TrainingProgress(config.task["name"]))
    if process_rank() > 0:
        return
    typer.echo(f"encoder: {out}")
    typer.echo(f"next: medssl finetune --cohort {config.cohort} --init {out} --num-labelled 10 --out {out}-finetuned")
