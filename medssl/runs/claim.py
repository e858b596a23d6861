"""One writer per run folder: a claim that the operating system gives back when its process dies."""

import errno
import fcntl
import os
from pathlib import Path

from medssl.errors import UsageError
from medssl.files import explain_write_errors

CLAIM_FILE = ".claim"


class Claim:
    """Held from create or resume until the run is finished. UsageError when another process holds it.

    A POSIX record lock: unlike flock it is not inherited by forked data workers, which may outlive a killed training.
    """

    def __init__(self, folder: Path) -> None:
        self._file: int | None = None
        with explain_write_errors(folder / CLAIM_FILE):
            file = os.open(folder / CLAIM_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                message = f"{folder} is being written by another process. Wait until it is done, or stop it first."
                raise UsageError(message) from error
            # Some network file systems know no locks; there the folder is trusted to have one writer.
            return
        self._file = file

    def release(self) -> None:
        """Gives the folder back; may be called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.release()


def is_claimed(folder: Path) -> bool:
    """Whether another process is writing this run; False where the file system knows no locks.

    Do not ask in the process that writes it: closing the file would give its claim back.
    """
    try:
        file = os.open(folder / CLAIM_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    finally:
        os.close(file)
    return False
