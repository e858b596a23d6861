"""Mirrors a run to MLflow while it trains, from one background thread that never blocks the training."""

from __future__ import annotations

import contextlib
import logging
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from medssl.config import TrackingConfig
from medssl.errors import MedsslError, TrackingError
from medssl.runs.run import Run

if TYPE_CHECKING:
    from medssl.tracking.replay import Replay

log = logging.getLogger(__name__)

EVERY_S = 5.0
# After the training: long enough for a slow server, short enough for somebody who waits for the prompt.
FLUSH_S = 60.0
FAILURES_BEFORE_WARNING = 3


class Mirror:
    """Context manager around a training.

    An error of MLflow never reaches the training: it is logged and counted, and `medssl sync` sends what is missing.
    """

    def __init__(
        self, run: Run, *, settings: TrackingConfig, every_s: float = EVERY_S, flush_s: float = FLUSH_S
    ) -> None:
        self._run, self._settings = run, settings
        self._every_s, self._flush_s = every_s, flush_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="medssl-mirror", daemon=True)
        self._complete = False
        self.failures = 0

    def __enter__(self) -> Mirror:
        # Here and not in the thread: of two threads that import large packages at once, one may get a partially
        # initialised module, and the other thread is the training.
        self._import_mlflow()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(self._flush_s)
        if not self._complete:
            self._say(
                f"MLflow does not have all of this run. Send what is missing with: medssl sync {self._run.folder}"
            )

    def _import_mlflow(self) -> None:
        try:
            from medssl.tracking.client import quiet_mlflow

            quiet_mlflow()
            import mlflow.tracking  # noqa: F401

            import medssl.tracking.replay  # noqa: F401
        except Exception as error:  # a broken installation of MLflow must not stop the training
            self._count(error)

    def _work(self) -> None:
        replay: Replay | None = None
        while True:
            last = self._over.wait(self._every_s if replay else 0.0)
            replay = self._attempt(replay, last=last)
            if last:
                return
            if replay is None:
                self._over.wait(self._every_s)

    def _attempt(self, replay: Replay | None, *, last: bool) -> Replay | None:
        try:
            from medssl.tracking.replay import Replay

            replay = replay or Replay(self._run, self._settings)
            replay.push()
            if last:
                replay.conclude()
                self._complete = True
        except Exception as error:  # whatever a database or a server throws must not stop the training
            self._count(error)
        return replay

    def _count(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == FAILURES_BEFORE_WARNING:
            # Our errors say what to do and hide passwords; those of MLflow may quote addresses and passwords.
            what = (
                str(error)
                if isinstance(error, TrackingError)
                else f"MLflow cannot be reached ({type(error).__name__})."
            )
            self._say(f"{what} Training goes on; metrics are in the run folder.")

    def _say(self, sentence: str) -> None:
        log.warning(sentence)
        # The training itself reports a full disk.
        with contextlib.suppress(MedsslError):
            self._run.note(sentence)
