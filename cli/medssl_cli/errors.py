"""From an exception to a line on stderr and an exit code: 0 done, 1 failed, 2 usage or configuration, 130 stopped."""

import errno
import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from medssl.errors import ConfigError, MedsslError, UsageError

EXIT_FAILED = 1
EXIT_USAGE = 2

# What a disk or a file's permissions do to any command, and what helps.
_DISK_ADVICE = {
    errno.ENOSPC: "Free some space, or write elsewhere with --out.",
    errno.EDQUOT: "Free some of your quota, or write elsewhere with --out.",
    errno.EROFS: "Write elsewhere with --out.",
    errno.EACCES: "Change its permissions, or choose another path.",
    errno.EPERM: "Change its permissions, or choose another path.",
    errno.EEXIST: "A file is in the way. Choose a folder with --out.",
    errno.ENOTDIR: "A file is in the way. Choose a folder with --out.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
}
# These are answers to a path that was given, not to the state of the disk.
_ASKED_WRONGLY = (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG)


class GuardedGroup(TyperGroup):
    """Every command runs inside this: errors that a user can act on become one line, bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; MedsslErrors, a disk that refuses and plugins that call sys.exit end it with a sentence."""
        if isinstance(sys.stdout, io.TextIOWrapper):  # a path that is no UTF-8 is printed all the same
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except MedsslError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(exit_code(error)) from error
        except SystemExit as end:
            if type(end) is not SystemExit:  # SIGTERM, see medssl.runs.ending
                raise
            typer.echo(f"Error: a plugin ended the command (SystemExit: {end}) before it was done.", err=True)
            raise typer.Exit(EXIT_FAILED) from end
        except OSError as error:
            if error.errno not in _DISK_ADVICE:
                raise
            typer.echo(f"Error: {_disk_sentence(error)}", err=True)
            raise typer.Exit(EXIT_USAGE if error.errno in _ASKED_WRONGLY else EXIT_FAILED) from error
        except RuntimeError as error:
            if not _is_out_of_gpu_memory(error):
                raise
            typer.echo(
                "Error: the GPU's memory is full. Lower loop.batch_size or patch, or choose a smaller encoder.preset.",
                err=True,
            )
            raise typer.Exit(EXIT_FAILED) from error


def exit_code(error: MedsslError) -> int:
    """2 where the command was not asked rightly, 1 where it failed."""
    return EXIT_USAGE if isinstance(error, (ConfigError, UsageError)) else EXIT_FAILED


def plugin_hint() -> str | None:
    """What to try after a bug when plugins from outside are loaded; None where there are none."""
    from medssl.plugins import list_tasks

    foreign = sorted({entry.origin for entry in list_tasks() if not entry.built_in and entry.status != "off"})
    if not foreign:
        return None
    return f"Plugins are installed: {', '.join(foreign)}. Try again with MEDSSL_PLUGINS=none, which leaves them out."


def _disk_sentence(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}. {_DISK_ADVICE[error.errno or 0]}"


def _is_out_of_gpu_memory(error: RuntimeError) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
