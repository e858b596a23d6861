"""The command `medssl`: its list of commands, and the options before the command."""

import importlib
import os
from typing import Annotated

import typer

from medssl import __version__
from medssl_cli.errors import GuardedGroup, plugin_hint

_PATH, _REVIEW, _SETUP = "From archive to model", "Review", "Set-up"

# Name, panel of the help. A command lives in the module of `commands` with its name ('-' is '_'), as a function of the
# same name or, for a group of commands, as `app`. These modules import nothing heavy at their top, since
# `medssl --help` imports them all.
COMMANDS = (
    ("ingest", _PATH),
    ("archive", _PATH),
    ("convert", _PATH),
    ("pretrain", _PATH),
    ("finetune", _PATH),
    ("label-efficiency", _PATH),
    ("predict", _PATH),
    ("export", _PATH),
    ("demo", _PATH),
    ("runs", _REVIEW),
    ("review", _REVIEW),
    ("ui", _REVIEW),
    ("sync", _REVIEW),
    ("score", _REVIEW),
    ("embed", _REVIEW),
    ("plugins", _SETUP),
    ("config", _SETUP),
    ("doctor", _SETUP),
    ("bench", _SETUP),
)

app = typer.Typer(
    name="medssl",
    cls=GuardedGroup,
    help="Self-supervised pretraining for medical imaging: from a scan archive to label-efficient segmentation.",
    epilog="Start with `medssl demo`, then `medssl ingest SOURCE --out COHORT`.",
    no_args_is_help=True,
    # Locals would print patients' paths.
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"medssl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", help="Ignore all installed plugins (MEDSSL_PLUGINS=none).")
    ] = False,
    without_plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--without-plugin", metavar="NAME", help="Ignore a plugin, named by distribution or task. Repeatable."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""
    # Environment variables reach the worker processes and ranks that a command starts.
    if no_plugins:
        os.environ["MEDSSL_PLUGINS"] = "none"
    if without_plugin:
        words = [os.environ.get("MEDSSL_PLUGINS", ""), *(f"-{name}" for name in without_plugin)]
        os.environ["MEDSSL_PLUGINS"] = ",".join(word for word in words if word)


def _register() -> None:
    for name, panel in COMMANDS:
        module = importlib.import_module(f"medssl_cli.commands.{name.replace('-', '_')}")
        if isinstance(group := getattr(module, "app", None), typer.Typer):
            app.add_typer(group, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(getattr(module, name.replace("-", "_")))


_register()


def main() -> None:
    """Entry point of the `medssl` script."""
    try:
        app()
    except Exception as bug:
        if hint := plugin_hint():
            bug.add_note(hint)
        raise


if __name__ == "__main__":
    main()
