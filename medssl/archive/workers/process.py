"""Processes that may die in place of the one that started them: each runs one task after the other, over a pipe.

Their parents are threaded, and those on Dask workers may have no children of the multiprocessing module. So they are
started afresh, not forked. When its parent is gone, a process ends after its current task.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from queue import Empty, SimpleQueue

from medssl.archive.workers.task import R, T, TaskResult, timed_out, worker_died

_GRACE_S = 5.0


class ProcessPool:
    """Processes for the threads that call `run`: never more than threads call it at a time.

    Args:
        worker_bytes: Address space of each process.
    """

    def __init__(self, *, worker_bytes: int) -> None:
        self._worker_bytes = worker_bytes
        self._idle: SimpleQueue[TaskProcess] = SimpleQueue()
        self._started: list[TaskProcess] = []
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, function: Callable[[T], R], task: T, *, timeout_s: float) -> TaskResult[T, R]:
        """Run a task in an idle process, which is kept for the next task unless this one kills it."""
        try:
            process = self._idle.get_nowait()
        except Empty:
            process = self._start()
        try:
            return process.run(function, task, timeout_s=timeout_s)
        finally:
            if process.alive:
                self._idle.put(process)

    def stop(self) -> None:
        """Kill every process. Tasks in flight end as if their worker had died."""
        with self._lock:
            self._stopped = True
            for process in self._started:
                process.kill()

    def stop_idle(self) -> None:
        """Kill the processes that wait for a task; those at work stay."""
        while not self._idle.empty():
            self._idle.get_nowait().kill()

    def _start(self) -> "TaskProcess":
        with self._lock:
            self._started = [process for process in self._started if process.alive]
            process = TaskProcess(worker_bytes=self._worker_bytes)
            self._started.append(process)
            if self._stopped:
                process.kill()
        return process


class TaskProcess:
    """The parent's end. Only `kill` may be called from another thread than the one that runs a task.

    Args:
        worker_bytes: Address space of the process.
    """

    def __init__(self, *, worker_bytes: int) -> None:
        self._pipe, child_pipe = Pipe()
        command = [sys.executable, "-m", "medssl.archive.workers.process", str(child_pipe.fileno()), str(worker_bytes)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        # A blocked signal stays blocked in the child: Ctrl-C is the parent's to handle from the start on.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[child_pipe.fileno()], env=environment
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        child_pipe.close()
        self._ready = False

    @property
    def alive(self) -> bool:
        """Whether it can take another task."""
        return self._process.poll() is None

    def run(self, function: Callable[[T], R], task: T, *, timeout_s: float) -> TaskResult[T, R]:
        """Run `function(task)`. A process that dies or takes too long is gone afterwards.

        The time counts from when the process is ready, which may take seconds on a busy machine.
        """
        try:
            if not self._ready:
                self._ready = self._pipe.recv()
            self._pipe.send((function, task))
            if not self._pipe.poll(timeout_s):
                self.kill()
                self._close()
                return TaskResult(task, None, timed_out(timeout_s))
            result, error = self._pipe.recv()
        except (EOFError, OSError):
            self._close()
            return TaskResult(task, None, worker_died(self._process.returncode))
        if error is not None:
            raise error
        return TaskResult(task, result, None)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def _close(self) -> None:
        """Wait until the process has ended, by force where it does not end by itself."""
        self._pipe.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(pipe: Connection) -> None:
    """The child's end: run what comes over the pipe until its other end is closed."""
    pipe.send(True)
    while True:
        try:
            function, task = pipe.recv()
        except EOFError:
            return
        answer: tuple[object, Exception | None]
        try:
            answer = (function(task), None)
        except Exception as error:  # whatever it is, the parent raises it again
            error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
            answer = (None, error)
        pipe.send(answer)


def limit_process(worker_bytes: int) -> None:
    """Limits of a worker process: memory, threads, no core dumps."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = worker_bytes if hard == resource.RLIM_INFINITY else min(worker_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    # Decoders print to standard output, which belongs to the command's own result.
    os.dup2(2, 1)
    limit_process(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))
