"""A training that ends between two steps as if it had been killed."""

from medssl.progress import Silent


class KilledError(Exception):
    """Stands for a kill."""


class KillAt(Silent):
    """Progress that raises KilledError after a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        if done == self.at:
            raise KilledError
