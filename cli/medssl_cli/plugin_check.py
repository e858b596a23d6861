"""The checks of `medssl plugins check`: how a plugin is installed, then the conformance kit."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medssl.config.load import gather
from medssl.errors import MedsslError, PluginError
from medssl.plugins import (
    TaskEntry,
    encoders_in,
    list_encoders,
    list_tasks,
    load_task,
    task_config,
    tasks_in,
)

if TYPE_CHECKING:
    from medssl.encoders.encoder import Encoder
    from medssl.plugins import LoadedTask


@dataclass(frozen=True)
class Line:
    """One tick or cross. problem: what to change, None where all is well."""

    task: str
    title: str
    problem: str | None


def check_target(target: str, *, settings: Sequence[str]) -> Iterator[Line]:
    """Lines for every task and encoder of a file, or for the installed one of that name, as soon as each is known."""
    path = Path(target)
    if target.endswith(".py") or path.is_file():
        yield from _file(path, settings)
        return
    entry = next((entry for entry in list_tasks() if entry.name == target), None)
    if entry is None and target in _encoder_names():
        yield from _installed_encoder(target, settings)
        return
    title = "The plugin loads, and its task has a name of its own."
    try:
        loaded = load_task(target)
    except MedsslError as error:
        if entry is None:
            raise
        yield Line(target, title, str(error))
        return
    yield Line(target, title, None)
    if entry is not None:
        yield from _installation(entry, "tasks", [task.name for task in tasks_in(entry)])
    yield from _task(loaded, settings)


def print_outcomes(lines: Iterable[Line], *, as_json: bool) -> int:
    """Print the lines as they come and return the number of crosses."""
    found = []
    task = ""
    for line in lines:
        found.append(line)
        if as_json:
            continue
        if line.task != task:
            task = line.task
            typer.echo(task)
        typer.echo(f"  {'✓' if line.problem is None else '✗'} {line.title}")
        if line.problem is not None:
            typer.echo(f"      → {line.problem}")
    failed = sum(line.problem is not None for line in found)
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in found], indent=2))
    else:
        typer.echo(f"{len(found) - failed} of {len(found)} checks passed.")
    return failed


def _file(path: Path, settings: Sequence[str]) -> Iterator[Line]:
    title = "The file loads, and its hook returns tasks or encoders."
    try:
        tasks, encoders = tasks_in(path), encoders_in(path)
        if not tasks and not encoders:
            raise PluginError(f"the hook of {path.name} returns no class. Return a list such as [MyTask].")
    except PluginError as error:
        yield Line(path.name, title, str(error))
        return
    yield Line(path.name, title, None)
    for loaded in tasks:
        yield from _task(loaded, settings)
    for found in encoders:
        yield from _encoder(found.name, found.cls, settings)


def _task(loaded: "LoadedTask", settings: Sequence[str]) -> Iterator[Line]:
    import torch

    from medssl.testing import run_checks

    torch.set_num_threads(1)  # volumes this small are slower with more, and the two processes want the other cores
    options = gather(files=(), settings=settings, flags=None).tree
    task_config(loaded.cls, options)
    for outcome in run_checks(loaded.cls, options=options):
        yield Line(loaded.name, outcome.title, outcome.problem)


def _encoder_names() -> tuple[str, ...]:
    from medssl.encoders.build import ENCODERS

    return (*ENCODERS, *(entry.name for entry in list_encoders()))


def _installed_encoder(name: str, settings: Sequence[str]) -> Iterator[Line]:
    from medssl.encoders.build import encoder_class

    title = "The plugin loads, and its encoder has a name of its own."
    try:
        cls = encoder_class(name)
    except MedsslError as error:
        yield Line(name, title, str(error))
        return
    yield Line(name, title, None)
    for entry in list_encoders():
        if entry.name == name:
            yield from _installation(entry, "encoders", [found.name for found in encoders_in(entry)])
    yield from _encoder(name, cls, settings)


def _encoder(name: str, cls: "type[Encoder]", settings: Sequence[str]) -> Iterator[Line]:
    import torch

    from medssl.testing import run_encoder_checks

    torch.set_num_threads(1)
    options = gather(files=(), settings=settings, flags=None).tree
    for outcome in run_encoder_checks(cls, options=options):
        yield Line(name, outcome.title, outcome.problem)


def _installation(entry: TaskEntry, kind: str, names: Sequence[str]) -> Iterator[Line]:
    from medssl_cli.checkup.contents import unmet_requirements

    problem = None
    if entry.entry_point.dist is not None:
        unmet = unmet_requirements({entry.entry_point.dist.name})
        problem = f"{unmet[0].text}. {unmet[0].fix}" if unmet else None
    yield Line(entry.name, "The plugin asks for a medssl that is installed.", problem)
    problem = None
    if entry.name not in names:
        problem = f"The entry point is '{entry.name}', its {kind} are {', '.join(names)}. Name it alike."
    yield Line(entry.name, f"The entry point has the name of its {kind.removesuffix('s')}.", problem)
