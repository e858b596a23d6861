"""Loading many scans in workers that may die: who gets another chance, and with what."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from medssl.archive.index.load_plan import without_labels
from medssl.archive.index.outcome import Outcome
from medssl.archive.rejection import Rejected
from medssl.archive.workers.local import TaskResult, Workers
from medssl.cohort.reasons import Flag, Reason


@runtime_checkable
class Task(Protocol):
    """A dataclass that says what a worker needs to know about one scan. source: as it lies in the index."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def source(self) -> str:
        """Where the scan comes from."""


T = TypeVar("T", bound=Task)


def attempts(
    workers: Workers, function: Callable[[T], Outcome], tasks: Iterator[T], *, timeout_s: float
) -> Iterator[tuple[T, Outcome]]:
    """What loading each scan came to, as it comes.

    A scan whose worker died gets a second chance: the first death may have been another one's memory. If it dies again,
    its label objects may be to blame, and it gets a third one without them.
    """
    again: list[T] = []
    bare: list[T] = []
    for last in (False, True):
        for done in workers.run(function, again if last else tasks, timeout_s=timeout_s):
            if done.failure and not last:
                again.append(done.task)
            elif done.failure and (source := without_labels(done.task.source)):
                bare.append(replace(done.task, source=source))
            else:
                yield done.task, _outcome(done)
    for done in workers.run(function, bare, timeout_s=timeout_s):
        yield done.task, _label_lost(_outcome(done))


def _outcome(done: TaskResult[T, Outcome]) -> Outcome:
    return done.result or Outcome.of(done.failure or Rejected(Reason.DECODER_CRASH, "no answer"))


def _label_lost(outcome: Outcome) -> Outcome:
    """Of a scan that was loaded without the label objects that it has."""
    if outcome.reason:
        return outcome
    detail = "the worker died, or ran out of time, while it read the label"
    flags = (*outcome.flags, Flag.F_LABEL_LEFT_OUT)
    return replace(outcome, flags=flags, label_reason=Reason.LABEL_UNREADABLE, label_detail=detail)
