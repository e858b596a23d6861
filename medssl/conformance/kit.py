"""Running the checks, one by one and all of them."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from medssl.conformance.checks import CHECKS, Check, air_is_survived, evaluation_changes_no_state, several_channels_work
from medssl.conformance.two_ranks import TwoRanks, two_ranks_equal_one
from medssl.conformance.workbench import Workbench
from medssl.errors import PluginError
from medssl.pretext.task import PretextTask

# What one process can check by itself.
ALONE: tuple[Check, ...] = (*CHECKS, evaluation_changes_no_state, air_is_survived, several_channels_work)


@dataclass(frozen=True)
class Outcome:
    """How one check went. title: what was checked. problem: what to change, None where all is well."""

    name: str
    title: str
    problem: str | None


def checks_of(cls: type[PretextTask], *, options: Mapping[str, Any] | None = None) -> dict[str, Callable[[], None]]:
    """Every check of a task by name, each ready to be called; a failing one raises."""
    bench = Workbench(cls, options=options)
    return {check.__name__: partial(check, bench) for check in (*ALONE, two_ranks_equal_one)}


def run_checks(
    cls: type[PretextTask], *, options: Mapping[str, Any] | None = None, two_ranks: bool = True
) -> Iterator[Outcome]:
    """The outcome of every check, each as soon as it is known.

    two_ranks: whether the check that needs two processes is made; they run while the others are.
    """
    bench = Workbench(cls, options=options)
    with TwoRanks(bench) if two_ranks else nullcontext() as ranks:
        for check in ALONE:
            yield outcome(check, partial(check, bench))
        if ranks:
            yield outcome(two_ranks_equal_one, ranks.compare)


def outcome(check: Callable[..., None], run: Callable[[], None]) -> Outcome:
    """How `check` went when it was run; whatever it raised is in words."""
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
    own = [frame for frame in frames if "/medssl/" not in frame.filename] or frames
    place = f" ({own[-1].filename}:{own[-1].lineno}: {own[-1].line})" if own else ""
    if isinstance(error, SystemExit):
        return f"it ends the process (SystemExit: {error}){place}. Raise an exception where something is wrong."
    return f"{type(error).__name__}: {error}{place}"
