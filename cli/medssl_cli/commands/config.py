"""`medssl config`: show settings, check files, print the JSON schema."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl_cli.options import ConfigFiles, Overrides

if TYPE_CHECKING:
    from medssl.config import FinetuneConfig, PretrainConfig

app = typer.Typer(no_args_is_help=True, help="Show, check and describe settings.")


class Command(StrEnum):
    """Commands that take a configuration."""

    PRETRAIN = "pretrain"
    FINETUNE = "finetune"


For = Annotated[Command, typer.Option("--for", help="Command whose settings to use.")]


@app.command()
def show(command: For = Command.PRETRAIN, files: ConfigFiles = None, overrides: Overrides = None) -> None:
    """Print every setting with its value, bounds, meaning and, where it differs from the default, its origin.

    Example: medssl config show --for finetune > finetune.yaml
    """
    from medssl.config import explained_yaml

    typer.echo(explained_yaml(_model(command), files=files or [], settings=overrides or []), nl=False)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML files; later files win.")],
    command: For = Command.PRETRAIN,
    overrides: Overrides = None,
) -> None:
    """Check files, including the task's settings, and report all problems at once.

    Example: medssl config check pretrain.yaml --set loop.steps=100
    """
    from medssl.config import PretrainConfig, resolve_config
    from medssl.plugins import load_task, task_config

    resolved = resolve_config(_model(command), files=files, settings=overrides or [])
    if isinstance(resolved.config, PretrainConfig):
        task = load_task(str(resolved.config.task.get("name", "")), files=resolved.config.plugins)
        task_config(task.cls, resolved.config.task, origins=resolved.origins)
    n_given = len(resolved.origins)
    typer.echo(f"ok: {n_given} settings given, defaults for the others (medssl config show --for {command.value})")


@app.command()
def schema(
    command: For = Command.PRETRAIN,
    task: Annotated[str | None, typer.Option(help="Pretext task whose settings to describe instead.")] = None,
) -> None:
    """Print the JSON Schema of the settings, for editors that complete and check YAML.

    Example: medssl config schema > medssl.schema.json
    """
    from medssl.plugins import load_task

    model = load_task(task).cls.Config if task else _model(command)
    typer.echo(json.dumps(model.model_json_schema(), indent=2))


def _model(command: Command) -> "type[PretrainConfig] | type[FinetuneConfig]":
    from medssl.config import FinetuneConfig, PretrainConfig

    return PretrainConfig if command is Command.PRETRAIN else FinetuneConfig
