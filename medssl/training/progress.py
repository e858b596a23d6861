"""What the loop tells whoever watches it."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Shows a training to a person; `medssl_cli.progress` has the terminal's."""

    def start(self, total_steps: int) -> None:
        """Training begins; `total_steps` counts from step 0, also when it continues."""

    def step(self, step: int, *, loss: float, volumes_per_s: float, wait_share: float) -> None:
        """Step `step` is done. wait_share: part of the time that went into waiting for data, in [0, 1]."""

    def say(self, line: str) -> None:
        """Something worth reading, such as a verdict, between two steps or before the first."""

    def close(self, last_line: str) -> None:
        """Training is over; `last_line` is the path that the next command needs."""


class Silent:
    """Shows nothing: for tests, ranks above 0 and library use."""

    def start(self, total_steps: int) -> None:
        """Nothing."""

    def step(self, step: int, *, loss: float, volumes_per_s: float, wait_share: float) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def close(self, last_line: str) -> None:
        """Nothing."""
