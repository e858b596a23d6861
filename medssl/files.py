"""Writing to a run folder so that nothing is ever half-written, and a full disk is said in one sentence."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medssl.errors import DataError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_can_be_made(folder: Path) -> None:
    """Raise UsageError for a folder to be made below a file."""
    if file := next((path for path in folder.parents if path.is_file()), None):
        raise UsageError(f"{folder} cannot be made, because {file} is a file. Name another folder for --out.")


def write_atomically(path: Path, content: bytes) -> None:
    """The file with this content, or the file as it was before; never something between.

    DataError when the disk is full or the folder cannot be written.
    """
    with say_what_failed(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise


def prepare_new_file(path: Path) -> None:
    """Make the folder of a file that is written later. Raises UsageError where the file exists, DataError where the
    folder cannot be made: before hours of work, not after them.
    """
    if path.exists():
        raise UsageError(f"{path} exists. Choose another file with --out.")
    with say_what_failed(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def append_line(path: Path, line: str) -> None:
    """One more line, handed to the operating system before this returns: it outlives kill -9.

    A line that does not fit on the disk is taken back, so that the file still ends with a whole line. DataError then.
    """
    content = f"{line}\n".encode()
    with say_what_failed(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            # One call, so that a reader never sees the line in pieces; going on after a short one brings up its reason.
            written = file.write(content)
            while written < len(content):
                written += file.write(content[written:])
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


@contextlib.contextmanager
def say_what_failed(path: Path) -> Iterator[None]:
    """Turns an OSError from writing `path` into a DataError that names the file, the folder and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            message = (
                f"The disk that holds {path.parent} is full ({_free(path.parent)}); {path.name} could not be written. "
            )
            raise DataError(message + "Free some space there, then continue the run with --resume.") from error
        reason = error.strerror or type(error).__name__
        message = (
            f"{path} cannot be written: {reason}. Check that the folder still exists and that you may write to it."
        )
        raise DataError(message) from error


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB free"
    except OSError:
        return "free space unknown"


def _umask() -> int:
    # There is no call that reads the umask without setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
