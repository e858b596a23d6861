"""Work done ahead of its use, in a thread."""

import threading
from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

# Seconds between two looks at whether anybody still waits.
PATIENCE_S = 0.1


def ahead(items: Iterator[T], work: Callable[[T], U], *, depth: int = 2) -> Iterator[U]:
    """`work` of every item, in order, up to `depth` results before they are asked for; its errors are raised here.

    The thread ends when the items do, or when the iterator is closed.
    """
    results: Queue[tuple[bool, U | BaseException | None]] = Queue(maxsize=depth)
    closed = threading.Event()

    def run() -> None:
        try:
            for item in items:
                _offer(results, (True, work(item)), closed)
                if closed.is_set():
                    return
            _offer(results, (False, None), closed)
        except BaseException as error:  # whatever it is, it is raised where the result was due
            _offer(results, (False, error), closed)

    thread = threading.Thread(target=run, daemon=True, name="medssl-ahead")
    thread.start()
    try:
        while True:
            is_result, value = results.get()
            if not is_result:
                if isinstance(value, BaseException):
                    raise value
                return
            yield value  # type: ignore[misc]  # results carry what `work` returned
    finally:
        closed.set()
        _drain(results)


def _offer(results: "Queue[T]", value: T, closed: threading.Event) -> None:
    while not closed.is_set():
        try:
            results.put(value, timeout=PATIENCE_S)
        except Full:
            continue
        return


def _drain(results: "Queue[T]") -> None:
    while True:
        try:
            results.get_nowait()
        except Empty:
            return
