"""Exceptions as one line on stderr and an exit code: 0 done, 1 failed, 2 usage or configuration, 130 interrupted."""

import errno
import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from medssl.errors import ConfigError, MedsslError, UsageError

EXIT_FAILED = 1
EXIT_USAGE = 2

# Errors of disks and permissions that any command can meet, and what to do.
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
# The path on the command line is wrong, not the state of the disk: a usage error.
_USAGE_ERRNOS = (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG)


class GuardedGroup(TyperGroup):
    """Runs every command: errors that a user can act on become one line, bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Turn MedsslError, disk errors and a plugin's sys.exit into one line and an exit code."""
        if isinstance(sys.stdout, io.TextIOWrapper):  # prints paths that are not UTF-8
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except MedsslError as error:
            raise _failed(str(error), exit_code(error)) from error
        except SystemExit as end:
            if type(end) is not SystemExit:  # SIGTERM, see medssl.runs.ending
                raise
            raise _failed(f"a plugin ended the command (SystemExit: {end}) before it was done.") from end
        except OSError as error:
            if error.errno not in _DISK_ADVICE:
                raise
            code = EXIT_USAGE if error.errno in _USAGE_ERRNOS else EXIT_FAILED
            raise _failed(_disk_sentence(error), code) from error
        except RuntimeError as error:
            if not _is_out_of_gpu_memory(error):
                raise
            advice = "Lower loop.batch_size or patch, or choose a smaller encoder.preset."
            raise _failed(f"the GPU's memory is full. {advice}") from error


def _failed(sentence: str, code: int = EXIT_FAILED) -> typer.Exit:
    typer.echo(f"Error: {sentence}", err=True)
    return typer.Exit(code)


def exit_code(error: MedsslError) -> int:
    """2 for an error of usage or configuration, 1 for any other."""
    return EXIT_USAGE if isinstance(error, (ConfigError, UsageError)) else EXIT_FAILED


def plugin_hint() -> str | None:
    """Advice after a bug if third-party plugins are installed, else None."""
    from medssl.plugins import list_tasks

    foreign = sorted({entry.origin for entry in list_tasks() if not entry.built_in and entry.status != "off"})
    if not foreign:
        return None
    return f"Plugins are installed: {', '.join(foreign)}. Try again with MEDSSL_PLUGINS=none, which leaves them out."


def _disk_sentence(error: OSError) -> str:
    path = f"{error.filename}: " if error.filename else ""
    return f"{path}{error.strerror}. {_DISK_ADVICE[error.errno or 0]}"


def _is_out_of_gpu_memory(error: RuntimeError) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
