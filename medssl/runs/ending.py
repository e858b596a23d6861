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

_PACKAGES = {"medssl", "medssl_tasks", "medssl_cli"}


class Terminated(SystemExit):
    """SIGTERM arrived: what SLURM, Docker and kill send first. Exits with 143, as shells expect."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextlib.contextmanager
def finish_at_end(finish: Callable[..., None], *, is_open: Callable[[], bool]) -> Iterator[None]:
    """Call `finish(status, reason=...)` once the block ends, unless `is_open` says that it was called before.

    What was raised is raised again.
    """
    with sigterm_as_exception():
        try:
            yield
        except (KeyboardInterrupt, Terminated) as stop:
            by = "SIGTERM" if isinstance(stop, Terminated) else "hand"
            _finish_quietly(finish, is_open, "killed", f"stopped by {by}")
            raise
        except BaseException as error:
            _finish_quietly(finish, is_open, "failed", describe(error))
            raise
        if is_open():
            finish("finished")


def _finish_quietly(finish: Callable[..., None], is_open: Callable[[], bool], status: str, reason: str) -> None:
    """Finish, and only print what fails there: the error that ends the run says more than a full disk."""
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
    inside = [frame for frame in frames if _PACKAGES & set(Path(frame.filename).parts)] or frames
    if not inside:
        return type(error).__name__
    return f"{type(error).__name__} in {_path_from_package(Path(inside[-1].filename))}:{inside[-1].lineno}"


def _path_from_package(file: Path) -> str:
    """The part of a path from its package on: the folders above may be somebody's home."""
    packages = [number for number, part in enumerate(file.parts) if part in _PACKAGES]
    return "/".join(file.parts[packages[-1] :]) if packages else file.name


@contextlib.contextmanager
def sigterm_as_exception() -> Iterator[None]:
    """SIGTERM raises `Terminated` inside the block, so that the block can end the run."""
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


class StopRequest:
    """Whether somebody asked the training to stop, and with which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def exception(self) -> BaseException:
        """What ends the training: the same as outside the loop, where a signal stops it at once."""
        return Terminated() if self.signal == signal.SIGTERM else KeyboardInterrupt()


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request, so that what was trained is saved between two steps; a second
    one ends the training at once.

    Outside the main thread, where Python takes no handlers, signals keep their meaning.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        again, request.signal = bool(request), signal.Signals(number)
        if again:
            raise request.exception()

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
