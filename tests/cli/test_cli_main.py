"""What all commands have in common: start-up, help, exit codes, error messages."""

import errno
import importlib
import os
import resource
import subprocess
import sys

import pytest
import torch
import typer
from typer.testing import CliRunner

from medssl.errors import CheckpointError, ConfigError, DataError, PluginError, TrackingError, UsageError
from medssl_cli.commands.label_efficiency import named_runs
from medssl_cli.errors import GuardedGroup
from medssl_cli.main import COMMANDS, app

HEAVY = ("torch", "monai", "mlflow", "matplotlib", "pandas", "pyarrow", "pydicom", "blosc2", "nibabel", "numpy")
REPORT = (
    "import sys, atexit; atexit.register(lambda: print('LOADED', *sorted({!r} & set(sys.modules)), file=sys.stderr))\n"
)


def medssl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; its stderr ends with what it loaded."""
    code = (
        REPORT.format(set(HEAVY))
        + f"sys.argv = ['medssl', *{list(arguments)!r}]\nfrom medssl_cli.main import main\nmain()"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False
    )


def failing(error: BaseException) -> typer.Typer:
    """A group of commands like medssl's with a command that raises."""
    group = typer.Typer(cls=GuardedGroup, pretty_exceptions_show_locals=False)

    @group.callback()
    def options() -> None:
        """Makes the commands a group, as medssl's are."""

    @group.command()
    def fail() -> None:
        raise error

    return group


def test_help_is_light_and_fast():
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = medssl("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == "LOADED"
    assert min(seconds) < 0.5, f"CPU seconds of `medssl --help`: {seconds}"


@pytest.mark.parametrize(
    "arguments", [("plugins", "list"), ("plugins", "list", "--json"), ("config", "show"), ("--version",)]
)
def test_light_commands_load_nothing_heavy(arguments):
    result = medssl(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == "LOADED"


def test_completion_loads_nothing_heavy():
    result = medssl(_MEDSSL_COMPLETE="complete_bash", COMP_WORDS="medssl pl", COMP_CWORD="1")
    assert "plugins" in result.stdout
    assert result.stderr.strip() == "LOADED"


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_every_command_has_help(name):
    if importlib.util.find_spec(f"medssl_cli.commands.{name.replace('-', '_')}") is None:
        pytest.skip(f"`medssl {name}` is not there yet")
    assert f" {name} " in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 100


def test_misspelt_command_or_option_gets_suggestion():
    result = CliRunner().invoke(app, ["plugns"])
    assert result.exit_code == 2
    assert "Did you mean 'plugins'" in result.output
    result = CliRunner().invoke(app, ["plugins", "list", "--jsn"])
    assert result.exit_code == 2
    assert "--json" in result.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("optim.lr is -1."), 2),
        (UsageError("No such folder."), 2),
        (DataError("scan is truncated."), 1),
        (PluginError("No task."), 1),
        (TrackingError("No store."), 1),
        (CheckpointError("No match."), 1),
    ],
)
def test_medssl_error_is_one_line_on_stderr(error, code):
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == code
    assert result.stderr == f"Error: {error}\n"
    assert result.stdout == ""


def test_disk_errors_are_sentences():
    result = CliRunner().invoke(failing(OSError(errno.ENOSPC, "No space left on device", "runs/a")), ["fail"])
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: runs/a: No space left on device. Free some space, or write elsewhere with --out.\n",
    )
    result = CliRunner().invoke(failing(PermissionError(errno.EACCES, "Permission denied", "runs/a")), ["fail"])
    assert result.exit_code == 1
    assert "runs/a: Permission denied. Change its permissions" in result.stderr


def test_full_gpu_is_a_sentence():
    result = CliRunner().invoke(failing(torch.OutOfMemoryError("CUDA out of memory.")), ["fail"])
    assert result.exit_code == 1
    assert "Lower loop.batch_size or patch" in result.stderr
    assert isinstance(CliRunner().invoke(failing(RuntimeError("shape")), ["fail"]).exception, RuntimeError)


@pytest.mark.parametrize("given", [".", "../masked", "below/..", "../latest"])
def test_named_runs_resolves_folder_names(tmp_path, monkeypatch, given):
    (tmp_path / "masked" / "below").mkdir(parents=True)
    (tmp_path / "latest").symlink_to(tmp_path / "masked")
    monkeypatch.chdir(tmp_path / "masked")
    assert named_runs([given]) == {"latest" if given == "../latest" else "masked": given}


def test_interrupt_exits_with_130():
    assert CliRunner().invoke(failing(KeyboardInterrupt()), ["fail"]).exit_code == 130


def test_bug_keeps_traceback_without_locals(install):
    site = install("medssl-p1", {"jigsaw-x": "import medssl\n"})
    code = (
        "import typer\nfrom medssl_cli import main\n"
        "@main.app.command('crash')\ndef crash() -> None:\n    patient = 'DOE' + 'JANE'\n    raise ZeroDivisionError\n"
        "import sys\nsys.argv = ['medssl', 'crash']\nmain.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(site)},
        check=False,
    )
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stderr
    assert "DOEJANE" not in result.stderr
    assert "medssl-p1 0.1" in result.stderr
    assert "MEDSSL_PLUGINS=none" in result.stderr


def test_options_before_command_leave_plugins_out(install):
    site = str(install("medssl-p1", {"jigsaw-x": "import medssl\n"}))
    for options in (("--no-plugins",), ("--without-plugin", "medssl-p1"), ("--without-plugin", "jigsaw-x")):
        result = medssl(*options, "plugins", "list", PYTHONPATH=site)
        (line,) = [line for line in result.stdout.splitlines() if line.startswith("jigsaw-x")]
        assert line.split()[-1] == "off"
