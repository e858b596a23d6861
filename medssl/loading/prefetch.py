"""Results computed in a thread before they are needed."""

import threading
from collections.abc import Callable, Iterator
from queue import Full, Queue
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

# Seconds after which a waiting producer checks whether the consumer has gone.
POLL_S = 0.1


def prefetch(items: Iterator[T], work: Callable[[T], U], *, depth: int = 2) -> Iterator[U]:
    """`work` of every item, in order, up to `depth` results ahead of the consumer. Errors of `work` are raised here.

    The thread ends with the items, or when the iterator is closed.
    """
    results: Queue[tuple[bool, U | BaseException | None]] = Queue(maxsize=depth)
    closed = threading.Event()

    def run() -> None:
        try:
            for item in items:
                _put(results, (True, work(item)), closed)
                if closed.is_set():
                    return
            _put(results, (False, None), closed)
        except BaseException as error:  # any error is raised where its result was due
            _put(results, (False, error), closed)

    thread = threading.Thread(target=run, daemon=True, name="medssl-prefetch")
    thread.start()
    try:
        while True:
            is_result, value = results.get()
            if not is_result:
                if isinstance(value, BaseException):
                    raise value
                return
            yield value  # type: ignore[misc]  # results hold what `work` returned
    finally:
        closed.set()
        while not results.empty():
            results.get_nowait()


def _put(results: "Queue[T]", value: T, closed: threading.Event) -> None:
    while not closed.is_set():
        try:
            results.put(value, timeout=POLL_S)
        except Full:
            continue
        return
