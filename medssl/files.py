"""Writing files so that no reader ever meets half of one, and so that a full disk is explained in one sentence."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from medssl.errors import DataError, MedsslError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DRAFT = ".tmp"


@contextlib.contextmanager
def atomic_write(
    path: Path,
    *,
    mode: int = 0o666,
    error: type[MedsslError] = DataError,
    library_errors: tuple[type[Exception], ...] = (),
) -> Iterator[Path]:
    """A draft beside `path`, which takes its name once the block has written it and it is on the disk.

    After a crash or a power cut, `path` is the old file or the new one. Several writers, be they on several machines,
    do not meet: the last to finish wins.

    Args:
        path: The file to write or replace. Its folder exists.
        mode: Permissions of the new file, less the umask; 0o600 for what nobody else may read, not even as a draft.
        error: What to raise where the file cannot be written.
        library_errors: Exceptions other than OSError by which a library reports a failed write.

    Raises:
        MedsslError: `error`, which names the file, the reason, the free space and what to do.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_DRAFT}")
    with explain_write_errors(path, error=error, library_errors=library_errors):
        try:
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
            yield draft
            # Before the rename: after a power cut the name could otherwise stand for an empty file.
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A draft beside `path` for the block to create and fill; it takes the name, free or an empty folder, at the end.

    A killed process leaves its draft behind; the next one removes it.
    """
    draft = path.with_name(f".{path.name}{_DRAFT}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        yield draft
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_bytes(path: Path, content: bytes, *, error: type[MedsslError] = DataError) -> None:
    """Replace the content of a file with `atomic_write`."""
    with atomic_write(path, error=error) as draft:
        draft.write_bytes(content)


def remove_drafts(folder: Path) -> None:
    """Remove the drafts of files that killed processes left in a folder; nobody else may be writing to it."""
    for draft in folder.glob(f".*{_DRAFT}"):
        draft.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append one line and hand it to the operating system before returning, so that it outlives kill -9.

    A line that does not fit on the disk is taken back: the file still ends with a complete line. Raises DataError then.
    """
    content = f"{line}\n".encode()
    with explain_write_errors(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            # One call, so that a reader never sees a line in pieces. After a short write the next one raises the
            # reason.
            written = file.write(content)
            while written < len(content):
                written += file.write(content[written:])
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def check_folder_creatable(folder: Path) -> None:
    """Raise UsageError where a parent of `folder` is a file."""
    if file := next((path for path in folder.parents if path.is_file()), None):
        raise UsageError(f"{folder} cannot be created, because {file} is a file. Choose another folder with --out.")


def prepare_new_file(path: Path) -> None:
    """Create the folder of a file that is written after hours of work.

    Raises UsageError where the file exists, DataError where the folder cannot be created.
    """
    if path.exists():
        raise UsageError(f"{path} exists. Choose another file with --out.")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def explain_write_errors(
    path: Path, *, error: type[MedsslError] = DataError, library_errors: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn an OSError, or one of `library_errors`, into an `error` that names the file, the reason and what to do."""
    expected: tuple[type[Exception], ...] = (OSError, *library_errors)
    try:
        yield
    except expected as cause:
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        if getattr(cause, "errno", None) in _FULL:
            message = (
                f"{path} cannot be written: the disk is full ({reason}; {_free(path.parent)}). "
                "Free some space there, then run the command again; a training continues with --resume."
            )
        else:
            message = (
                f"{path} cannot be written: {reason} ({_free(path.parent)}). Check that the folder exists, has space "
                "and may be written to, or choose another folder."
            )
        raise error(message) from cause


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.0f} MB free"
    except OSError:
        return "free space unknown"
