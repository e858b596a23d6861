"""A process that may die in the place of the one that started it: one task after the other, over a pipe.

For parents that can have no children of the multiprocessing module, as Dask's workers under a nanny, and are threaded:
it is started afresh, not forked. When the parent is gone it ends after the task at hand.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import TypeVar

from medssl.archive.workers.local import TaskResult, limit_process, timed_out, worker_died

T = TypeVar("T")
R = TypeVar("R")
_GRACE_S = 5.0


class TaskProcess:
    """The parent's end. worker_bytes: address space of the process. It is used by one thread at a time."""

    def __init__(self, *, worker_bytes: int) -> None:
        self._pipe, theirs = Pipe()
        words = [sys.executable, "-m", "medssl.archive.workers.process", str(theirs.fileno()), str(worker_bytes)]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        theirs.close()
        self._started = False

    @property
    def alive(self) -> bool:
        """Whether it can take another task."""
        return self._process.poll() is None

    def run(self, function: Callable[[T], R], task: T, *, timeout_s: float) -> TaskResult[T, R]:
        """What `function(task)` came to. A process that dies or takes too long is gone afterwards.

        The time counts from when the process has started, which may take seconds on a busy machine.
        """
        try:
            if not self._started:
                self._started = self._pipe.recv()
            self._pipe.send((function, task))
            if not self._pipe.poll(timeout_s):
                self.close(grace_s=0)
                return TaskResult(task, None, timed_out(timeout_s))
            result, error = self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            return TaskResult(task, None, worker_died(self._process.returncode))
        if error is not None:
            raise error
        return TaskResult(task, result, None)

    def close(self, *, grace_s: float = _GRACE_S) -> None:
        """End the process, by force where it does not end by itself."""
        self._pipe.close()
        try:
            if not grace_s:
                self._process.kill()
            self._process.wait(grace_s or _GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(pipe: Connection) -> None:
    """The child's end: do what comes over the pipe until nobody is there any more."""
    pipe.send(True)
    while True:
        try:
            function, task = pipe.recv()
        except EOFError:
            return
        answer: tuple[object, Exception | None]
        try:
            answer = (function(task), None)
        except Exception as error:  # whatever it is, it is raised again where the task came from
            error.add_note("in a process of its own:\n" + "".join(traceback.format_exception(error)))
            answer = (None, error)
        pipe.send(answer)


if __name__ == "__main__":
    # What a decoder prints belongs to nobody's output.
    os.dup2(2, 1)
    limit_process(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))
