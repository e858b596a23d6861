"""`medssl bench`: where a training step's time goes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from medssl.training.benchmark import StepTiming


def bench(
    cohort: Annotated[Path, typer.Option(help="Cohort made by `medssl ingest`.")],
    task: Annotated[str | None, typer.Option(help="Pretext task to train; without one only data are read.")] = None,
    encoder: Annotated[str | None, typer.Option(help="dynunet, segresnet, swin-unetr or vit.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Regions per step.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read scans; 0 reads in the loop.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time, after a few to warm up.")] = 20,
    config: Annotated[list[Path] | None, typer.Option(help="YAML file of a pretraining. Repeatable.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting. Repeatable.")] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="File with a task of your own. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the parts of a training step on this machine, and say what would help. Writes nothing.

    Example: medssl bench --cohort cohort --task masked-volume --workers 4
    """
    from medssl.config import PretrainConfig, load_config
    from medssl.training.benchmark import benchmark

    # Without a task the settings still need one: it names no more than the defaults of the loop.
    flags: dict[str, Any] = {
        "cohort": cohort,
        "task.name": task or "masked-volume",
        "encoder.name": encoder,
        "loop.batch_size": batch_size,
        "loop.workers": workers,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    settings = load_config(PretrainConfig, files=config or [], settings=set_ or [], flags=given)
    timing = benchmark(settings, with_task=task is not None, steps=steps, plugin_files=plugin or [])
    typer.echo(json.dumps(_as_dict(timing), indent=2) if as_json else _as_text(timing))


def _as_dict(timing: "StepTiming") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(timing)


def _as_text(timing: "StepTiming") -> str:
    lines = [f"{'part':12}{'ms per step':>12}{'share':>8}"]
    for name, ms in timing.parts_ms.items():
        lines.append(f"{name:12}{ms:>12.2f}{ms / timing.step_ms:>8.1%}")
    lines.append(f"{'step':12}{timing.step_ms:>12.2f}   {timing.samples_per_s:.1f} samples per second")
    in_workers = ", ".join(f"{name} {ms:.2f} ms" for name, ms in timing.in_workers_ms.items())
    lines.append(f"one batch in one worker: {in_workers}")
    return "\n".join([*lines, *timing.advice])
