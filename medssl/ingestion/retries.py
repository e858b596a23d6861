"""Loading many scans in workers that may die: who gets another chance, and with what."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from medssl.archive.index.load_plan import LOAD_PLANS, DicomLoadPlan
from medssl.archive.index.planned_scan import Outcome
from medssl.archive.rejection import Rejected
from medssl.archive.workers.task import TaskResult, Workers
from medssl.cohort.reasons import Flag, Reason


@runtime_checkable
class Task(Protocol):
    """A dataclass that says what a worker needs to know about one scan."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def load_plan_json(self) -> str:
        """What to read, as it lies in the index."""


T = TypeVar("T", bound=Task)


def load_with_retries(
    workers: Workers, function: Callable[[T], Outcome], tasks: Iterator[T], *, timeout_s: float
) -> Iterator[tuple[T, Outcome]]:
    """What loading each scan gave, in the order in which workers finish.

    A scan whose worker died is tried again: another scan may have taken the memory. If it dies again, its label objects
    may be to blame, and it is tried a third time without them.
    """
    second_attempts: list[T] = []
    third_attempts: list[T] = []
    for result in workers.run(function, tasks, timeout_s=timeout_s):
        if result.failure:
            second_attempts.append(result.task)
        else:
            yield result.task, _outcome(result)
    for result in workers.run(function, second_attempts, timeout_s=timeout_s):
        if result.failure and (plan := _without_labels(result.task.load_plan_json)):
            third_attempts.append(replace(result.task, load_plan_json=plan))
        else:
            yield result.task, _outcome(result)
    for result in workers.run(function, third_attempts, timeout_s=timeout_s):
        yield result.task, _label_lost(_outcome(result))


def _outcome(result: TaskResult[T, Outcome]) -> Outcome:
    return result.result or Outcome.of(result.failure or Rejected(Reason.DECODER_CRASH, "no answer"))


def _without_labels(load_plan_json: str) -> str | None:
    """The same plan without its label objects; None where it has none."""
    plan = LOAD_PLANS.validate_json(load_plan_json)
    if not isinstance(plan, DicomLoadPlan) or not plan.labels:
        return None
    return LOAD_PLANS.dump_json(replace(plan, labels=())).decode()


def _label_lost(outcome: Outcome) -> Outcome:
    """Of a scan that was loaded without the label objects that it has."""
    if outcome.reason:
        return outcome
    detail = "the worker died, or ran out of time, while it read the label"
    flags = (*outcome.flags, Flag.F_LABEL_LEFT_OUT)
    return replace(outcome, flags=flags, label_reason=Reason.LABEL_UNREADABLE, label_detail=detail)
