"""The pool: a worker that aborts or hangs costs its task, and the culprit is known."""

import os

import pytest
from dangerous import GIGABYTE, behave, fail

from medssl.archive.workers.local import LocalWorkers
from medssl.cohort.reasons import Reason


def test_death_and_timeout_cost_their_own_task():
    with LocalWorkers(2, worker_bytes=4 * GIGABYTE) as workers:
        done = {one.task: one for one in workers.run(behave, [0, 1, 2, 3, 4, 6, 7], timeout_s=1.5)}
    assert {task: one.result for task, one in done.items() if one.failure is None} == {0: 0, 1: 1, 3: 9, 6: 36, 7: 49}
    assert done[2].failure.reason is Reason.DECODER_CRASH
    assert done[4].failure.reason is Reason.TIMEOUT


def test_worker_memory_is_limited():
    with LocalWorkers(1, worker_bytes=4 * GIGABYTE) as workers, pytest.raises(MemoryError):
        list(workers.run(behave, [5], timeout_s=30.0))


def test_task_exception_is_raised_unchanged():
    with LocalWorkers(1, worker_bytes=4 * GIGABYTE) as workers, pytest.raises(ZeroDivisionError):
        list(workers.run(fail, [1], timeout_s=30.0))


def test_zero_workers_run_in_this_process():
    with LocalWorkers(0, worker_bytes=GIGABYTE) as workers:
        assert [one.result for one in workers.run(os.getpid.__class__, [], timeout_s=1.0)] == []
        assert [one.result for one in workers.run(behave, [3], timeout_s=1.0)] == [9]
