import threading
import time

import pytest
from waiting import wait_for

from medssl.loading.prefetch import prefetch


def test_prefetch_keeps_order_and_ends():
    assert list(prefetch(iter(range(20)), lambda n: n * n)) == [n * n for n in range(20)]


def test_prefetch_raises_error_in_order():
    stream = prefetch(iter([1, 2, 0, 3]), lambda n: 6 // n)
    assert [next(stream), next(stream)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_prefetch_works_ahead_within_depth():
    """Results are computed before they are requested, and at most `depth` of them."""
    done: list[int] = []
    stream = prefetch(iter(range(100)), lambda n: done.append(n) or n, depth=2)
    next(stream)
    wait_for(lambda: len(done) >= 3)
    time.sleep(0.1)  # for what it would do too much
    assert len(done) <= 5
    stream.close()


def test_prefetch_close_ends_thread():
    stream = prefetch(iter(range(1000)), lambda n: n)
    next(stream)
    stream.close()
    wait_for(lambda: "medssl-prefetch" not in {thread.name for thread in threading.enumerate()})
