import threading
import time

import pytest
from waiting import wait_for

from medssl.loading.prefetch import prefetch


def test_results_come_in_order_and_end_with_the_items():
    assert list(prefetch(iter(range(20)), lambda n: n * n)) == [n * n for n in range(20)]


def test_an_error_is_raised_where_the_result_was_due():
    stream = prefetch(iter([1, 2, 0, 3]), lambda n: 6 // n)
    assert [next(stream), next(stream)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_work_is_done_before_it_is_asked_for_but_not_far_ahead():
    done: list[int] = []
    stream = prefetch(iter(range(100)), lambda n: done.append(n) or n, depth=2)
    next(stream)
    wait_for(lambda: len(done) >= 3)
    time.sleep(0.1)  # for what it would do too much
    assert len(done) <= 5
    stream.close()


def test_a_closed_stream_ends_its_thread():
    stream = prefetch(iter(range(1000)), lambda n: n)
    next(stream)
    stream.close()
    wait_for(lambda: "medssl-prefetch" not in {thread.name for thread in threading.enumerate()})
