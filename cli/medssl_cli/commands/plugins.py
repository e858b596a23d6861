"""`medssl plugins`: installed pretext tasks and encoders, a template for new ones, and checks."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl_cli.options import AsJson, PluginFiles

if TYPE_CHECKING:
    from medssl.plugins import TaskEntry

app = typer.Typer(no_args_is_help=True, help="List, show, write and check pretext tasks and encoders.")


@app.command("list")
def list_plugins(
    as_json: AsJson = False,
    load: Annotated[bool, typer.Option("--load", help="Import each plugin and report whether that works.")] = False,
) -> None:
    """List pretext tasks and encoders of installed plugins. Imports none of them without --load."""
    from medssl.plugins import list_encoders, list_tasks

    rows = [
        _row(entry, kind, load=load)
        for kind, entries in (("task", list_tasks()), ("encoder", list_encoders()))
        for entry in entries
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max((len(row["name"]) for row in rows), default=4)
    for row in rows:
        kind = "" if row["kind"] == "task" else "  (encoder)"
        typer.echo(f"{row['name']:<{width}}  {row['origin']:<24}  {row['status']}{kind}")
        if row["note"]:
            typer.echo(f"{'':<{width}}  {row['note']}")
    typer.echo("See `medssl plugins show NAME`; write one with `medssl plugins new NAME`.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Pretext task.")], files: PluginFiles = None, as_json: AsJson = False
) -> None:
    """Show what a pretext task does, where it comes from, and its settings.

    Example: medssl plugins show masked-volume
    """
    import inspect

    from medssl.config import setting_rows
    from medssl.plugins import load_task

    task = load_task(name, files=files or [])
    rows = setting_rows(task.cls.Config, prefix="task.")
    text = inspect.getdoc(task.cls) or ""
    if as_json:
        description = {"name": name, "family": task.cls.family, "origin": task.origin, "text": text}
        typer.echo(json.dumps({**description, "settings": [asdict(row) for row in rows]}, indent=2))
        return
    typer.echo(f"{name} ({task.cls.family}), from {task.origin}\n\n{text}\n")
    for row in rows:
        bounds = f", {row.bounds}" if row.bounds else ""
        typer.echo(f"  {row.key} = {row.default}  ({row.kind}{bounds})\n      {row.meaning}")
    example = f" --set {rows[0].key}={rows[0].default}" if rows else ""
    typer.echo(f"\nUse it: medssl pretrain --cohort COHORT --task {name}{example} --out RUN")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the task or encoder, such as masked-cubes.")],
    package: Annotated[
        bool, typer.Option("--package", help="Write a project for pip, with a test and a CI workflow.")
    ] = False,
    encoder: Annotated[
        bool, typer.Option("--encoder", help="Write an encoder instead of a task, always as a project.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
) -> None:
    """Write a working pretext task as a template: one file, or a project with --package; an encoder with --encoder.

    Example: medssl plugins new masked-cubes
    """
    from medssl_cli.scaffold import write_file, write_package

    if package or encoder:
        project = write_package(name, out, encoder=encoder)
        typer.echo(f"wrote {project}\nnext: pip install -e '{project}[test]' && medssl plugins check {name}")
    else:
        path = write_file(name, out)
        typer.echo(f"wrote {path}\nnext: medssl plugins check {path}")
        typer.echo(f"then: medssl pretrain --cohort COHORT --task {name} --plugin {path} --out RUN")


@app.command()
def check(
    target: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Installed task or encoder, or Python file.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Setting of the task or encoder, such as mask_ratio=0.5. Repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a pretext task or an encoder does what medssl expects, and say what to change where it does not.

    Exit code 1 if a check fails.

    Example: medssl plugins check masked_cubes.py
    """
    from medssl.plugins.exits import exits_are_errors, hard_exits_are_soft
    from medssl_cli.plugin_check import check_target, print_outcomes

    with exits_are_errors(target), hard_exits_are_soft():
        failed = print_outcomes(check_target(target, settings=settings or []), as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _row(entry: "TaskEntry", kind: str, *, load: bool) -> dict[str, str]:
    from medssl.errors import MedsslError
    from medssl.plugins import load_encoder, load_task

    status: str = entry.status
    note = ""
    if load and status == "ok":
        try:
            (load_task if kind == "task" else load_encoder)(entry.name)
        except MedsslError as error:
            status, note = "failed", str(error)
    origin = f"{entry.origin} (built in)" if entry.built_in else entry.origin
    return {"name": entry.name, "kind": kind, "origin": origin, "module": entry.module, "status": status, "note": note}
