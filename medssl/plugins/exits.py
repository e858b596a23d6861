"""A plugin that ends the process raises an error instead: its exit code 0 would look like success in CI."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from medssl.errors import PluginError


@contextmanager
def exits_are_errors(origin: str) -> Iterator[None]:
    """A `sys.exit` inside the block is a PluginError that names `origin`; what SIGTERM raises goes on."""
    try:
        yield
    except SystemExit as end:
        if type(end) is not SystemExit:  # the host's own, see medssl.runs.ending
            raise
        raise PluginError(
            f"{origin} ends the process (SystemExit: {end}) instead of returning. Let it raise an exception "
            "where something is wrong; see `medssl plugins check`."
        ) from end


@contextmanager
def hard_exits_are_soft() -> Iterator[None]:
    """`os._exit`, which nothing can catch, raises SystemExit inside the block: for checks, which must reach a result.

    In this process only: processes that a plugin forks may end.
    """
    original, host = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != host:
            original(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = original
