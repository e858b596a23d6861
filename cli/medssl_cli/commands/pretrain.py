"""`medssl pretrain`: train an encoder with one pretext task."""

from pathlib import Path
from typing import Annotated, Any

import typer


def pretrain(
    out: Annotated[Path, typer.Option(help="Run folder to write; with --resume, the run to continue.")],
    cohort: Annotated[Path | None, typer.Option(help="Cohort made by `medssl ingest`.")] = None,
    task: Annotated[str | None, typer.Option(help="Pretext task; `medssl plugins list` names them.")] = None,
    encoder: Annotated[str | None, typer.Option(help="dynunet, segresnet, swin-unetr or vit.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Regions per step, over all devices.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    devices: Annotated[str | None, typer.Option(help="Number of GPUs, or auto.")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="YAML file; later files win. Repeatable.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as optim.lr=3e-4. Repeatable.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="File with a task of your own. Repeatable.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, from a few timed steps; write no run.")
    ] = False,
) -> None:
    """Train an encoder on a cohort, without labels.

    Example: medssl pretrain --cohort cohort --task masked-volume --out runs/masked --steps 20000
    """
    from medssl.config import PretrainConfig, load_config
    from medssl.training.pretrain import pretrain as run_pretraining
    from medssl_cli.progress import TrainingProgress, own_rank
    from medssl_cli.training import check_paths, observer, resumed_files

    flags: dict[str, Any] = {
        "cohort": cohort,
        "task.name": task,
        "encoder.name": encoder,
        "loop.steps": steps,
        "loop.batch_size": batch_size,
        "loop.seed": seed,
        "loop.devices": devices,
        "plugins": [path.absolute() for path in plugin] if plugin else None,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    files = [*resumed_files(out, resume=resume), *(config or [])]
    settings = load_config(PretrainConfig, files=files, settings=set_ or [], flags=given)
    check_paths(settings.cohort)
    if dry_run:
        from medssl_cli.dry_run import describe_pretraining

        describe_pretraining(settings)
        return
    run_pretraining(
        settings,
        out,
        resume=resume,
        progress=TrainingProgress(settings.task["name"]),
        observe=observer(settings.tracking),
    )
    if own_rank() > 0:
        return
    typer.echo(f"encoder: {out}")
    typer.echo(f"next: medssl finetune --cohort {settings.cohort} --init {out} --num-labelled 10 --out {out}-finetuned")
