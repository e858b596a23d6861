"""How a training ends: by itself, by an error, or by somebody who stops it."""

import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from medssl.errors import MedsslError

_OWN = {"medssl", "medssl_tasks", "medssl_cli"}


class Terminated(SystemExit):
    """SIGTERM arrived: what SLURM, Docker and kill send first. Exits with 143, as shells expect."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextlib.contextmanager
def watch_the_end(finish: Callable[..., None], *, is_open: Callable[[], bool]) -> Iterator[None]:
    """Calls `finish(status, reason=...)` once the block ends, unless `is_open` says that it was called before.

    Whatever was raised goes on.
    """
    with sigterm_as_exception():
        try:
            yield
        except (KeyboardInterrupt, Terminated) as stop:
            _finish_and_go_on(
                finish, is_open, "killed", "stopped by SIGTERM" if isinstance(stop, Terminated) else "stopped by hand"
            )
            raise
        except BaseException as error:
            _finish_and_go_on(finish, is_open, "failed", describe(error))
            raise
        if is_open():
            finish("finished")


def _finish_and_go_on(finish: Callable[..., None], is_open: Callable[[], bool], status: str, reason: str) -> None:
    """The error on its way out says more than a second one from a disk that is full."""
    try:
        if is_open():
            finish(status, reason=reason)
    except MedsslError as error:
        print(f"The status '{status}' of the run could not be written: {error}", file=sys.stderr)


def describe(error: BaseException) -> str:
    """'ValueError in medssl/training/loop.py:120': the class and the place.

    Never the message, which may name files or patients.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _OWN & set(Path(frame.filename).parts)] or frames
    if not own:
        return type(error).__name__
    return f"{type(error).__name__} in {_place(Path(own[-1].filename))}:{own[-1].lineno}"


def _place(file: Path) -> str:
    """The file from its package on: what lies above may be somebody's home."""
    packages = [number for number, part in enumerate(file.parts) if part in _OWN]
    return "/".join(file.parts[packages[-1] :]) if packages else file.name


@contextlib.contextmanager
def sigterm_as_exception() -> Iterator[None]:
    """SIGTERM raises `Terminated` inside the block, so that what was begun is also ended."""
    # Only the main thread may set handlers; elsewhere SIGTERM stays as it was.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> Any:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
