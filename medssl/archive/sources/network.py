"""Asking a server: a few times, then this file has a reason; a server that is gone ends the ingest in one sentence."""

import time
from collections.abc import Callable
from typing import TypeVar

from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason
from medssl.errors import DataError

T = TypeVar("T")
# Long enough for a restart of the server behind a balancer, short enough that one bad file holds up nobody.
RETRY_PAUSES_S = (0.5, 2.0, 8.0)
# Asking again does not help.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)


def with_retries(call: Callable[[], T], *, alive: Callable[[], object], server: str) -> T:
    """What `call` gives, after a few tries.

    Raises Rejected with IO_ERROR for what this file alone is refused, DataError when the server as a whole does not
    answer: then `alive` fails too. Rejected passes.
    """
    for pause_s in (*RETRY_PAUSES_S, None):
        try:
            return call()
        except Rejected:
            raise
        except _FINAL as error:
            raise Rejected(Reason.IO_ERROR, f"the server refuses it ({type(error).__name__})") from error
        except Exception as error:  # every kind of store has errors of its own
            failure = error
        if pause_s is not None:
            time.sleep(pause_s)
    try:
        alive()
    except _FINAL:
        pass
    except Exception as error:
        raise DataError(
            f"{server} does not answer ({type(error).__name__}). Check the network and the server, then run the same "
            "command again: it continues where it stopped."
        ) from error
    raise Rejected(Reason.IO_ERROR, f"the server does not give it ({type(failure).__name__})") from failure
