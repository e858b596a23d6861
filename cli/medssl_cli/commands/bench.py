"""`medssl bench`: where the time of a training step goes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl_cli.options import AsJson, ConfigFiles, EncoderName, Overrides, PluginFiles, without_none

if TYPE_CHECKING:
    from medssl.training.trial import StepTiming


def bench(
    cohort: Annotated[Path, typer.Option(help="Cohort made by `medssl ingest`.")],
    task: Annotated[
        str | None, typer.Option(help="Pretext task to train. Without one, only the data path is timed.")
    ] = None,
    encoder: EncoderName = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Regions per step.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that load data; 0 loads in the training process.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time, after a few for warm-up.")] = 20,
    config_files: ConfigFiles = None,
    overrides: Overrides = None,
    plugin_files: PluginFiles = None,
    as_json: AsJson = False,
) -> None:
    """Time the parts of a training step on this machine and suggest improvements. Writes nothing.

    Example: medssl bench --cohort cohort --task masked-volume --workers 4
    """
    from medssl.config import PretrainConfig, load_config
    from medssl.training.trial import benchmark

    flags = without_none(
        {
            "cohort": cohort,
            "task.name": task or "masked-volume",  # the settings need a task, also when only the data path is timed
            "encoder.name": encoder,
            "loop.batch_size": batch_size,
            "loop.workers": workers,
        }
    )
    config = load_config(PretrainConfig, files=config_files or [], settings=overrides or [], flags=flags)
    timing = benchmark(config, with_task=task is not None, steps=steps, plugin_files=plugin_files or [])
    typer.echo(json.dumps(asdict(timing), indent=2) if as_json else _as_text(timing))


def _as_text(timing: "StepTiming") -> str:
    lines = [f"{'part':12}{'ms per step':>12}{'percent':>9}"]
    for name, ms in timing.parts_ms.items():
        lines.append(f"{name:12}{ms:>12.2f}{ms / timing.step_ms:>9.1%}")
    lines.append(f"{'step':12}{timing.step_ms:>12.2f}   {timing.samples_per_s:.1f} samples per second")
    in_workers = ", ".join(f"{name} {ms:.2f} ms" for name, ms in timing.in_workers_ms.items())
    lines.append(f"one batch in one worker: {in_workers}")
    return "\n".join([*lines, *timing.advice])
