"""Requests to a server: a few attempts, then the file is rejected; a server that is gone ends the ingest."""

import time
from collections.abc import Callable
from typing import TypeVar

from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason
from medssl.errors import DataError

T = TypeVar("T")
# Long enough for a restart of the server behind a balancer, short enough that one bad file does not hold up the others.
RETRY_PAUSES_S = (0.5, 2.0, 8.0)
# Further attempts do not help.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)


def with_retries(request: Callable[[], T], *, ping: Callable[[], object], server: str) -> T:
    """The result of a request, after up to four attempts.

    When all have failed, `ping` decides whose fault it is: where the server still answers, only this file is lost.

    Args:
        request: Raises Rejected where further attempts are pointless, and anything else where they may help.
        ping: A small request that every working server answers.
        server: Name of the server for messages.

    Raises:
        Rejected: IO_ERROR when the server refuses this file alone, and what `request` raises itself.
        DataError: The server as a whole does not answer.
    """
    for pause_s in (*RETRY_PAUSES_S, None):
        try:
            return request()
        except Rejected:
            raise
        except _FINAL as error:
            raise Rejected(Reason.IO_ERROR, f"the server refuses it ({type(error).__name__})") from error
        except Exception as error:  # every kind of store has its own errors
            failure = error
        if pause_s is not None:
            time.sleep(pause_s)
    try:
        ping()
    except _FINAL:
        pass
    except Exception as error:
        raise DataError(
            f"{server} does not answer ({type(error).__name__}). Check the network and the server, then run the same "
            "command again: it continues where it stopped."
        ) from error
    raise Rejected(Reason.IO_ERROR, f"the server does not send it ({type(failure).__name__})") from failure
