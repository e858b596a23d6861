"""Progress on stderr: a live line in a terminal, else a plain line every ten seconds."""

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_EVERY_S = 10.0


def process_rank() -> int:
    """Rank of this process in a distributed training, from the variables of torchrun, SLURM or Fabric; else 0."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


class LiveProgress:
    """Counts per stage on stderr: live bars in a terminal, else a plain line every ten seconds."""

    def __init__(self) -> None:
        self._live: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._printed_s = time.monotonic()

    def __enter__(self) -> "LiveProgress":
        if sys.stderr.isatty():
            self._live = _bars(sys.stderr, with_time=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` of `total` items of a stage are finished."""
        if self._live is not None:
            if stage not in self._bars:
                self._bars[stage] = self._live.add_task(stage, total=total, note=note)
            self._live.update(self._bars[stage], completed=done, total=total, note=note)
        elif time.monotonic() - self._printed_s >= PLAIN_EVERY_S:
            self._printed_s = time.monotonic()
            of_total = f" of {total}" if total is not None else ""
            suffix = f" ({note})" if note else ""
            print(f"{stage}: {done}{of_total}{suffix}", file=sys.stderr, flush=True)


class TrainingProgress:
    """Shows the steps of a training, the figures in its notes and the time left. Silent on ranks above 0.

    The time left is estimated from the steps of this process after the first, which includes reading and compiling.
    """

    def __init__(
        self,
        label: str = "training",
        *,
        stream: TextIO | None = None,
        rank: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._silent = (process_rank() if rank is None else rank) > 0
        self._clock = clock
        self._started = False
        self._started_s = self._printed_s = 0.0
        self._total = 0
        self._first_step: int | None = None
        self._unprinted = ""
        self._live: Progress | None = None
        self._bar: TaskID | None = None

    def step(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` of `total` steps are finished, counted from step 0. The first call starts the display."""
        if self._silent:
            return
        if not self._started:
            self._start(total or 0)
            return
        if self._first_step is None:
            self._first_step, self._started_s = done, self._clock()
        note = f"{note} · {self._time_left(done)}"
        if self._live is not None and self._bar is not None:
            self._live.update(self._bar, completed=done, note=note)
            return
        self._unprinted = f"{self._label}: step {done}/{self._total} · {note}"
        if self._clock() - self._printed_s >= PLAIN_EVERY_S:
            self._printed_s = self._clock()
            self._print(self._unprinted)
            self._unprinted = ""

    def say(self, line: str) -> None:
        """Print a line that stays, above the live one."""
        if self._silent:
            return
        if self._live is not None:
            self._live.console.print(f"{self._label}: {line}", markup=False, highlight=False)
        else:
            self._print(f"{self._label}: {line}")

    def close(self, last_line: str) -> None:
        """End the display. `last_line` has the path that the next command needs."""
        if self._silent:
            return
        if self._live is not None:
            self._live.stop()
            self._live = None
        for line in (self._unprinted, last_line):
            if line:
                self._print(line)
        self._started, self._first_step, self._unprinted = False, None, ""

    def _start(self, total: int) -> None:
        self._started, self._total = True, total
        self._started_s = self._printed_s = self._clock()
        if self._stream.isatty():
            self._open_live_line()
        else:
            self._print(f"{self._label}: {total} steps")

    def _open_live_line(self) -> None:
        self._live = _bars(self._stream, with_time=False)
        self._bar = self._live.add_task(self._label, total=self._total, note="")
        self._live.start()

    def _time_left(self, step: int) -> str:
        done = step - (self._first_step or 0)
        if step >= self._total:
            return "done"
        if done <= 0:
            return "time left unknown"
        seconds = (self._clock() - self._started_s) / done * (self._total - step)
        return f"{timedelta(seconds=round(seconds))} left"

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _bars(stream: TextIO, *, with_time: bool) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counts = [TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn()]
    columns = [*counts, *[TimeRemainingColumn()] * with_time, TextColumn("{task.fields[note]}")]
    return Progress(*columns, console=Console(file=stream), refresh_per_second=4)
