"""`medssl label-efficiency`: whether pretraining helps when labels are few."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from medssl_cli.options import ConfigFiles, Overrides, without_none


def label_efficiency(
    out: Annotated[
        Path, typer.Option(help="Folder for runs, table, plot and page. Name it again to complete a comparison.")
    ],
    init: Annotated[
        list[str], typer.Option(help="Pretraining run, or NAME=RUN. Repeatable; scratch is always included.")
    ],
    cohort: Annotated[Path | None, typer.Option(help="Cohort made by `medssl ingest --label-dir`.")] = None,
    num_labelled: Annotated[str, typer.Option(help="Numbers of labelled training scans, such as 3,5,10.")] = "3,5,10",
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="Repetitions with other labels and new weights. Below 6 the intervals are too narrow."
        ),
    ] = 3,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of each fine-tuning.")] = None,
    config_files: ConfigFiles = None,
    overrides: Overrides = None,
) -> None:
    """Fine-tune from scratch and from pretrained encoders with few labels, and compare on the same test scans.

    Example: medssl label-efficiency --cohort cohort --init runs/masked --num-labelled 3,5,10 --seeds 3 --out evidence
    """
    from medssl.api import label_efficiency as run_comparison
    from medssl.config import FinetuneConfig, load_config
    from medssl_cli.progress import TrainingProgress
    from medssl_cli.training import check_paths

    flags = without_none({"init": "scratch", "num_labelled": 1, "cohort": cohort, "loop.steps": steps})
    config = load_config(FinetuneConfig, files=config_files or [], settings=overrides or [], flags=flags)
    pretrainings = named_runs(init)
    check_paths(config.cohort, *(Path(folder) for folder in pretrainings.values()))
    comparison = run_comparison(
        config,
        out,
        inits=pretrainings,
        num_labelled=label_counts(num_labelled),
        seeds=seeds,
        progress=TrainingProgress,
        warn=partial(typer.echo, err=True),
    )
    typer.echo(comparison.as_markdown())
    typer.echo(f"review: {out / 'review.html'}")


def named_runs(inits: list[str]) -> dict[str, str]:
    """Run folders by the name before `=`, or by the folder's name. Raises UsageError for a duplicate or 'scratch'."""
    from medssl.errors import UsageError

    runs: dict[str, str] = {}
    for init in inits:
        name, _, folder = init.rpartition("=")
        name = name or Path(os.path.abspath(folder)).name  # `.` has no name; a symbolic link keeps its name
        if name == "scratch":
            raise UsageError(
                "'scratch' is the training from random weights, which is always included. Choose another name: "
                f"--init OTHER={folder}."
            )
        if name in runs:
            raise UsageError(f"Two runs have the name '{name}'. Choose another name for one: --init OTHER={folder}.")
        runs[name] = folder
    return runs


def label_counts(text: str) -> list[int]:
    """'3,5,10' as sorted numbers. Raises UsageError for anything else."""
    from medssl.errors import UsageError

    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--num-labelled is '{text}'; it takes numbers separated by commas, such as 3,5,10.")
    return sorted({int(part) for part in parts})
