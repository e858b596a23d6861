"""How far long work is, for a person who watches; `medssl_cli.progress` has the terminal's."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class StageProgress(Protocol):
    """Counts the steps of each stage."""

    def step(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` of `total` steps of a stage are over; total is None while it is unknown."""


@runtime_checkable
class Progress(StageProgress, Protocol):
    """Shows a training: counts its steps and prints what is worth reading in between.

    The first `step` of a training says where it begins; `done` counts from step 0, also when a run continues.
    """

    def say(self, line: str) -> None:
        """Print a line that stays, such as a verdict, before the first step or between two."""

    def close(self, last_line: str) -> None:
        """Training is over; `last_line` is the path that the next command needs."""


class Silent:
    """Shows nothing: for tests, ranks above 0 and library use."""

    def step(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Ignore it."""

    def say(self, line: str) -> None:
        """Ignore it."""

    def close(self, last_line: str) -> None:
        """Ignore it."""
