"""A training that ends between two steps as if it had been killed."""

from medssl.training.progress import Silent


class KilledError(Exception):
    """Stands for a kill."""


class KillAt(Silent):
    """Progress that raises KilledError after a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, step: int, **shown: float) -> None:
        if step == self.at:
            raise KilledError
