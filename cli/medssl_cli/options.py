"""Options that mean the same in several commands."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from medssl.encoders.shipped import shipped_encoders

ConfigFiles = Annotated[
    list[Path] | None, typer.Option("--config", metavar="FILE", help="YAML file; later files win. Repeatable.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as optim.lr=3e-4. Repeatable.")
]
PluginFiles = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="FILE", help="Python file with pretext tasks. Repeatable.")
]
EncoderName = Annotated[str | None, typer.Option(help=f"{', '.join(shipped_encoders())}, or an encoder of a plugin.")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.")]
RunFolder = Annotated[Path, typer.Option(help="Run folder to write; with --resume, the run to continue.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}
