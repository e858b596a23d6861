"""`medssl config`: what can be set, what is set, and whether it holds together."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medssl.config import FinetuneConfig, PretrainConfig

app = typer.Typer(no_args_is_help=True, help="Show, check and describe settings.")


class Command(StrEnum):
    """Commands that take a configuration."""

    PRETRAIN = "pretrain"
    FINETUNE = "finetune"


For = Annotated[Command, typer.Option("--for", help="The command whose settings are meant.")]
Files = Annotated[
    list[Path] | None, typer.Option("--config", metavar="FILE", help="YAML file; later files win. Repeatable.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as optim.lr=3e-4. Repeatable.")
]


@app.command()
def show(command: For = Command.PRETRAIN, files: Files = None, settings: Settings = None) -> None:
    """Every setting with its value, bounds, meaning, and where a value that is no default came from.

    Example: medssl config show --for finetune > finetune.yaml
    """
    from medssl.config import explained_yaml

    typer.echo(explained_yaml(_model(command), files=files or [], settings=settings or []), nl=False)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML files, as for --config.")],
    command: For = Command.PRETRAIN,
    settings: Settings = None,
) -> None:
    """Whether files are a complete configuration, the task's own options included; all problems at once.

    Example: medssl config check pretrain.yaml --set loop.steps=100
    """
    from medssl.config import PretrainConfig, resolve_config
    from medssl.plugins import load_task, task_config

    resolved = resolve_config(_model(command), files=files, settings=settings or [])
    if isinstance(resolved.config, PretrainConfig):
        task = load_task(str(resolved.config.task.get("name", "")), files=resolved.config.plugins)
        task_config(task.cls, resolved.config.task, origins=resolved.origins)
    typer.echo(
        f"ok: {len(resolved.origins)} settings given, the rest are defaults (medssl config show --for {command.value})"
    )


@app.command()
def schema(
    command: For = Command.PRETRAIN,
    task: Annotated[str | None, typer.Option(help="Describe the options of this pretext task instead.")] = None,
) -> None:
    """JSON Schema of the settings, for editors that complete and check YAML.

    Example: medssl config schema > medssl.schema.json
    """
    from medssl.plugins import load_task

    model = load_task(task).cls.Config if task else _model(command)
    typer.echo(json.dumps(model.model_json_schema(), indent=2))


def _model(command: Command) -> "type[PretrainConfig] | type[FinetuneConfig]":
    from medssl.config import FinetuneConfig, PretrainConfig

    return PretrainConfig if command is Command.PRETRAIN else FinetuneConfig
