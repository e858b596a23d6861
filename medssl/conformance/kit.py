"""Run the conformance checks, alone or all of them."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from medssl.conformance.checks import SINGLE_PROCESS_CHECKS
from medssl.conformance.two_ranks import TwoRanks, two_ranks_equal_one
from medssl.conformance.workbench import Workbench
from medssl.errors import PluginError
from medssl.pretext.task import PretextTask


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check.

    Attributes:
        name: of the check.
        title: what was checked, in a sentence.
        problem: what to change; None where the check passed.
    """

    name: str
    title: str
    problem: str | None


def checks_of(cls: type[PretextTask], *, options: Mapping[str, Any] | None = None) -> dict[str, Callable[[], None]]:
    """Every check of a task by name, each ready to be called; a failing one raises."""
    bench = Workbench(cls, options=options)
    return {check.__name__: partial(check, bench) for check in (*SINGLE_PROCESS_CHECKS, two_ranks_equal_one)}


def run_checks(
    cls: type[PretextTask], *, options: Mapping[str, Any] | None = None, two_ranks: bool = True
) -> Iterator[Outcome]:
    """The outcome of every check, each as soon as it is known.

    Args:
        cls: The task.
        options: Settings of the task that differ from its defaults.
        two_ranks: Whether to run the check that needs two processes. They work while the other checks run.
    """
    bench = Workbench(cls, options=options)
    with TwoRanks(bench) if two_ranks else nullcontext() as ranks:
        for check in SINGLE_PROCESS_CHECKS:
            yield outcome(check, partial(check, bench))
        if ranks:
            yield outcome(two_ranks_equal_one, ranks.compare)


def outcome(check: Callable[..., None], run: Callable[[], None]) -> Outcome:
    """Run a check. Whatever it raises becomes the problem."""
    title = (check.__doc__ or "").strip().splitlines()[0]
    try:
        run()
    except PluginError as error:
        return Outcome(check.__name__, title, str(error))
    except (Exception, SystemExit) as error:
        return Outcome(check.__name__, title, _where(error))
    return Outcome(check.__name__, title, None)


def _where(error: BaseException) -> str:
    """An error inside the task, with the last line of it that is not a library's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    in_task = [frame for frame in frames if "/medssl/" not in frame.filename] or frames
    line = f" ({in_task[-1].filename}:{in_task[-1].lineno}: {in_task[-1].line})" if in_task else ""
    if isinstance(error, SystemExit):
        return f"it ends the process (SystemExit: {error}){line}. Raise an exception where something is wrong."
    return f"{type(error).__name__}: {error}{line}"
