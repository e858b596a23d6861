"""The checks of `medssl plugins check`: the installation of a plugin, then the conformance kit."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medssl.config.resolve import gather
from medssl.errors import MedsslError, PluginError
from medssl.plugins import TaskEntry, encoders_in, list_encoders, list_tasks, load_task, task_config, tasks_in

if TYPE_CHECKING:
    from medssl.encoders.encoder import Encoder
    from medssl.plugins import LoadedTask
    from medssl.testing import Outcome as KitOutcome


@dataclass(frozen=True)
class Outcome:
    """Outcome of one check: `problem` says what to change, None if it passed."""

    task: str
    title: str
    problem: str | None


def check_target(target: str, *, settings: Sequence[str]) -> Iterator[Outcome]:
    """Outcomes for every task and encoder of a file, or for the installed plugin of that name, one after the other."""
    path = Path(target)
    if target.endswith(".py") or path.is_file():
        yield from _file(path, settings)
        return
    entry = next((entry for entry in list_tasks() if entry.name == target), None)
    if entry is None and target in _encoder_names():
        yield from _installed_encoder(target, settings)
        return
    title = "The plugin loads, and the name of its task is unique."
    try:
        loaded = load_task(target)
    except MedsslError as error:
        if entry is None:
            raise
        yield Outcome(target, title, str(error))
        return
    yield Outcome(target, title, None)
    if entry is not None:
        yield from _installation(entry, "tasks", [task.name for task in tasks_in(entry)])
    yield from _task(loaded, settings)


def print_outcomes(stream: Iterable[Outcome], *, as_json: bool) -> int:
    """Print outcomes as they arrive and return the number of failed checks."""
    outcomes = []
    task = ""
    for outcome in stream:
        outcomes.append(outcome)
        if as_json:
            continue
        if outcome.task != task:
            task = outcome.task
            typer.echo(task)
        typer.echo(f"  {'✓' if outcome.problem is None else '✗'} {outcome.title}")
        if outcome.problem is not None:
            typer.echo(f"      → {outcome.problem}")
    failed = sum(outcome.problem is not None for outcome in outcomes)
    if as_json:
        typer.echo(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        typer.echo(f"{len(outcomes) - failed} of {len(outcomes)} checks passed.")
    return failed


def _file(path: Path, settings: Sequence[str]) -> Iterator[Outcome]:
    title = "The file loads, and its hook returns tasks or encoders."
    try:
        tasks, encoders = tasks_in(path), encoders_in(path)
        if not tasks and not encoders:
            raise PluginError(f"the hook of {path.name} returns no class. Return a list such as [MyTask].")
    except PluginError as error:
        yield Outcome(path.name, title, str(error))
        return
    yield Outcome(path.name, title, None)
    for loaded in tasks:
        yield from _task(loaded, settings)
    for encoder in encoders:
        yield from _encoder(encoder.name, encoder.cls, settings)


def _task(loaded: "LoadedTask", settings: Sequence[str]) -> Iterator[Outcome]:
    from medssl.testing import run_checks

    options = gather(files=(), settings=settings, flags=None).tree
    task_config(loaded.cls, options)
    yield from _kit(loaded.name, run_checks(loaded.cls, options=options))


def _encoder_names() -> tuple[str, ...]:
    from medssl.encoders.shipped import shipped_encoders

    return (*shipped_encoders(), *(entry.name for entry in list_encoders()))


def _installed_encoder(name: str, settings: Sequence[str]) -> Iterator[Outcome]:
    from medssl.encoders.build import encoder_class

    title = "The plugin loads, and the name of its encoder is unique."
    try:
        cls = encoder_class(name)
    except MedsslError as error:
        yield Outcome(name, title, str(error))
        return
    yield Outcome(name, title, None)
    for entry in list_encoders():
        if entry.name == name:
            yield from _installation(entry, "encoders", [encoder.name for encoder in encoders_in(entry)])
    yield from _encoder(name, cls, settings)


def _encoder(name: str, cls: "type[Encoder]", settings: Sequence[str]) -> Iterator[Outcome]:
    from medssl.testing import run_encoder_checks

    yield from _kit(name, run_encoder_checks(cls, options=gather(files=(), settings=settings, flags=None).tree))


def _kit(name: str, checks: "Iterator[KitOutcome]") -> Iterator[Outcome]:
    import torch

    torch.set_num_threads(1)  # small volumes are slower with more threads, and the two processes need the other cores
    for check in checks:
        yield Outcome(name, check.title, check.problem)


def _installation(entry: TaskEntry, kind: str, names: Sequence[str]) -> Iterator[Outcome]:
    from medssl_cli.checkup.contents import unmet_requirements

    problem = None
    if entry.entry_point.dist is not None:
        unmet = unmet_requirements({entry.entry_point.dist.name})
        problem = f"{unmet[0].text}. {unmet[0].fix}" if unmet else None
    yield Outcome(entry.name, "The plugin requires a medssl version that is installed.", problem)
    problem = None
    if entry.name not in names:
        problem = f"The entry point is '{entry.name}', its {kind} are {', '.join(names)}. Use the same name."
    yield Outcome(entry.name, f"The entry point has the name of its {kind.removesuffix('s')}.", problem)
