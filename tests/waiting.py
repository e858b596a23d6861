"""Waiting for what other threads and processes do, however busy the machine is."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], *, limit_s: float = 120.0) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, f"did not happen within {limit_s:g} s"
        time.sleep(0.02)
