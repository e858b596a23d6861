"""Who watches a run while it is written, without training knowing who: the mirror in MLflow, or nobody."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from medssl.runs.run import Run

# Starts what watches a run, and stops it when the run is over.
Observer: TypeAlias = Callable[[Run], AbstractContextManager[object]]


def no_observer(run: Run) -> AbstractContextManager[object]:
    """Nobody watches."""
    return nullcontext()
