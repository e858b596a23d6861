"""`medssl label-efficiency`: does pretraining help when labels are few?"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer


def label_efficiency(
    out: Annotated[
        Path, typer.Option(help="Folder for the fine-tuning runs, the table and the plot; again to complete it.")
    ],
    init: Annotated[
        list[str], typer.Option(help="Pretraining run, or NAME=RUN. Repeatable; scratch is always included.")
    ],
    cohort: Annotated[Path | None, typer.Option(help="Cohort made by `medssl ingest --labels`.")] = None,
    num_labelled: Annotated[str, typer.Option(help="Numbers of labelled training scans, such as 3,5,10.")] = "3,5,10",
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="Repetitions with other labels and new weights. With fewer than 6 the intervals are too narrow."
        ),
    ] = 3,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of each fine-tuning.")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="YAML file; later files win. Repeatable.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as optim.lr=3e-4. Repeatable.")
    ] = None,
) -> None:
    """Fine-tune from scratch and from pretrained encoders at several label counts, and compare on the same test scans.

    Example: medssl label-efficiency --cohort cohort --init runs/masked --num-labelled 3,5,10 --seeds 3 --out evidence
    """
    from medssl.config import FinetuneConfig, load_config
    from medssl.downstream.label_efficiency import label_efficiency as run_comparison
    from medssl.downstream.label_efficiency import markdown_table
    from medssl.tracking.review import write_review
    from medssl_cli.progress import TrainingProgress
    from medssl_cli.training import check_paths, observer, share_comparison

    flags: dict[str, Any] = {"cohort": cohort, "loop.steps": steps}
    given = {key: value for key, value in flags.items() if value is not None}
    settings = load_config(
        FinetuneConfig, files=config or [], settings=set_ or [], flags={"init": "scratch", "num_labelled": 1, **given}
    )
    starts = named_runs(init)
    check_paths(settings.cohort, *(Path(folder) for folder in starts.values()))
    comparisons = run_comparison(
        settings,
        starts,
        label_counts(num_labelled),
        seeds,
        out,
        progress=TrainingProgress,
        observe=observer(settings.tracking, beside=out),
    )
    typer.echo(markdown_table(comparisons))
    share_comparison(out, settings.tracking)
    typer.echo(f"review: {write_review(out)}")


def named_runs(given: list[str]) -> dict[str, str]:
    """`NAME=RUN` or `RUN`, whose folder name is then the name. Raises UsageError for a name used twice."""
    from medssl.errors import UsageError

    runs: dict[str, str] = {}
    for text in given:
        name, _, folder = text.rpartition("=")
        name = name or Path(os.path.abspath(folder)).name  # `.` has no name; a link keeps its own
        if name in runs or name == "scratch":
            raise UsageError(f"Two starts are called '{name}'. Give one another name: --init OTHER={folder}.")
        runs[name] = folder
    return runs


def label_counts(text: str) -> list[int]:
    """'3,5,10' as numbers. Raises UsageError for anything else."""
    from medssl.errors import UsageError

    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--num-labelled is '{text}'; it takes numbers separated by commas, such as 3,5,10.")
    return sorted({int(part) for part in parts})
