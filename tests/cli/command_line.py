"""The command line in this process, as a user calls it."""

from typer.testing import CliRunner

from medssl_cli.main import app


def medssl(*arguments: object, code: int = 0) -> str:
    """Output of a command, which must end with the exit code `code`."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})
    assert result.exit_code == code, result.output
    return result.output
