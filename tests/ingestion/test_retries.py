"""Workers that die: who gets another chance, and that a label object never costs its scan."""

from dataclasses import dataclass

from medssl.archive.index.load_plan import LOAD_PLANS, DicomLoadPlan, LabelObject, StampedFile
from medssl.archive.index.planned_scan import Outcome
from medssl.archive.rejection import Rejected
from medssl.archive.workers.local import LocalWorkers
from medssl.archive.workers.task import TaskResult
from medssl.cohort.reasons import Reason
from medssl.ingestion.retries import load_with_retries


@dataclass(frozen=True)
class Scan:
    scan_id: str
    load_plan_json: str


def load_plan(*, labelled: bool) -> str:
    label = LabelObject(StampedFile("/a/rt", 1, 2), structure_set=True, values=((3, 1),))
    return LOAD_PLANS.dump_json(DicomLoadPlan((), (), (1.0,) * 16, "CT", (label,) if labelled else ())).decode()


class Mortal(LocalWorkers):
    """Workers that die as often as is told for each scan, or for as long as it has label objects."""

    def __init__(self, deaths: dict[str, int], deadly_labels: set[str]) -> None:
        super().__init__(0, worker_bytes=1)
        self.deaths, self.deadly_labels = deaths, deadly_labels

    def run(self, function, tasks, *, timeout_s):
        for task in tasks:
            left = self.deaths.get(task.scan_id, 0)
            self.deaths[task.scan_id] = left - 1
            if left > 0 or (
                task.scan_id in self.deadly_labels and LOAD_PLANS.validate_json(task.load_plan_json).labels
            ):
                yield TaskResult(task, None, Rejected(Reason.DECODER_CRASH, "the worker died"))
            else:
                yield TaskResult(task, function(task), None)


def came_to(deaths: dict[str, int], deadly_labels: set[str], *, labelled: bool = True) -> Outcome:
    workers = Mortal(deaths, deadly_labels)
    tasks = iter([Scan("a", load_plan(labelled=labelled))])
    ((task, outcome),) = load_with_retries(workers, lambda _: Outcome(None, "", labels=(0, 1)), tasks, timeout_s=1.0)
    assert task.scan_id == "a"
    return outcome


def test_retry_after_first_death():
    assert came_to({"a": 1}, set()) == Outcome(None, "", labels=(0, 1))


def test_second_death_rejects_unlabelled_scan():
    assert came_to({"a": 2}, set(), labelled=False).reason is Reason.DECODER_CRASH


def test_second_death_retries_without_label_objects():
    outcome = came_to({}, {"a"})
    assert (outcome.reason, outcome.label_reason) == (None, Reason.LABEL_UNREADABLE)
    assert outcome.flags == ("F_LABEL_LEFT_OUT",)


def test_third_death_rejects_scan():
    assert came_to({"a": 3}, set()).reason is Reason.DECODER_CRASH
