"""Stopping between two steps, so that what was trained is saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from medssl.runs.ending import Terminated


class StopRequest:
    """Whether somebody asked the training to stop, and with which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def exception(self) -> BaseException:
        """What ends the training: the same as outside the loop, where a signal stops it at once."""
        return Terminated() if self.signal == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request that the loop honours after the current step; a second one
    ends it at once.

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
