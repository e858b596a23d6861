"""The run folder: the truth about one training, on disk.

Training writes it and nothing else; review, MLflow and the command line read it. Only one process of a training
(rank 0) holds a `Run` that writes. Layout: docs/architecture.md.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from medssl.files import append_line, explain_write_errors
from medssl.runs.claim import Claim, is_claimed
from medssl.runs.ending import finish_at_end
from medssl.runs.layout import empty, lay_out, plain, read_config, refuse_occupied, write_config
from medssl.runs.metrics_log import STEP, TIME, read_metrics
from medssl.runs.paths import RunPaths
from medssl.runs.picture_files import Picture, list_pictures, picture_path, write_png
from medssl.runs.provenance import code, versions
from medssl.runs.resuming import changed_settings, drop_beyond, identity, own_id
from medssl.runs.run_record import KINDS, Kind, RunRecord, Status, make_id, now, read_record, write_record

HEARTBEAT_S = 30.0
# Ten heartbeats: a probe or a slow disk may keep a healthy training quiet for a while.
SILENT_AFTER_S = 300.0


class Run:
    """One training on disk. Make one with `create`, read one with `open`, continue one with `resume`."""

    def __init__(self, folder: Path, record: RunRecord, claim: Claim | None) -> None:
        self.folder = folder
        self.paths = RunPaths(folder)
        self._record = record
        self._claim = claim
        self._last_beat_s = time.monotonic()
        # Pictures and metrics may come from the loop while a background check adds metadata.
        self._lock = threading.Lock()

    @classmethod
    def create(
        cls, folder: Path, *, kind: Kind, config: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
    ) -> "Run":
        """A new run in an empty or missing folder, status 'running'.

        Args:
            folder: Where it lies.
            kind: Which command makes it.
            config: The resolved settings, written as config.yaml.
            metadata: What a reviewer needs beyond them (task and its origin, digest of the data); no paths of scans, no
                names.

        Raises:
            UsageError: The folder holds anything, or another process is writing it.
            DataError: It cannot be written.
        """
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; a run is one of {', '.join(KINDS)}")
        refuse_occupied(folder)
        existed = folder.exists()
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        claim = Claim(folder)
        # Again, now that nobody else can write: two commands may have been started with one --out.
        refuse_occupied(folder)
        started = now()
        record = RunRecord(
            id=make_id(kind, started),
            kind=kind,
            status="running",
            started=started,
            heartbeat=started,
            versions=versions(),
            code=code(),
            folder=identity(folder),
            metadata=plain(metadata or {}),
        )
        try:
            lay_out(folder, record, config)
        except BaseException:
            # Nothing half-written stays behind: the same command works once the reason is gone.
            claim.release()
            empty(folder, keep=existed)
            raise
        return cls(folder, record, claim)

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """The run in `folder`, for reading. UsageError when it is not a run, DataError when run.json is damaged."""
        return cls(Path(folder), read_record(Path(folder)), None)

    @classmethod
    def resume(
        cls,
        folder: Path,
        *,
        at_step: int,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> "Run":
        """The run in `folder`, to go on.

        Later metrics and pictures are dropped: the run will make them again. A copy of a run gets an id of its own.

        Args:
            folder: Of the run.
            at_step: The step of its checkpoint; 0 starts the run over.
            config: The settings from here on; the record's `changes` then hold those that they replace.
            metadata: Added to the record's, or replacing it key by key.

        Raises:
            UsageError: The folder is not a run, or another process is writing it.
        """
        read_record(folder)
        claim = Claim(folder)
        # Again, now that nobody else can write.
        run = cls(folder, read_record(folder), claim)
        record, settings = run.record, plain(config) if config is not None else run.config
        before = changed_settings(run.config, settings)
        drop_beyond(folder, at_step=at_step)
        fields: dict[str, Any] = {"status": "running", "reason": None, "finished": None, "heartbeat": now()}
        if before:
            # Before the file: a change that is not written down could not be seen later.
            fields["changes"] = [*record.changes, {"step": at_step, "before": before}]
        run._write(
            resumes=[*record.resumes, at_step],
            metadata={**record.metadata, **plain(metadata or {})},
            **own_id(record, folder),
            **fields,
        )
        if before:
            write_config(folder, settings)
        return run

    @classmethod
    def close_silent(cls, folder: Path) -> bool:
        """Set a run that died without a word to killed; False, and nothing is done, where it lives or has ended.

        UsageError when another process is writing it.
        """
        claim = Claim(folder)
        # Read now that nobody else can write: it may have ended, or gone on, since somebody looked.
        run = cls(folder, read_record(folder), None)
        is_silent = _quiet_for_s(run.record) is not None
        if is_silent:
            run.finish("killed", reason="no sign of life")
        claim.release()
        return is_silent

    @property
    def id(self) -> str:
        """Made once at creation; unique over all machines, and free of names."""
        return self._record.id

    @property
    def kind(self) -> Kind:
        """'pretrain', 'finetune' or 'label-efficiency'."""
        return self._record.kind

    @property
    def status(self) -> Status:
        """'running', 'finished', 'failed' or 'killed'; see `silent_for_s` for a run that died without a word."""
        return self._record.status

    @property
    def metadata(self) -> dict[str, Any]:
        """What the command added at creation and since then (`update`)."""
        return dict(self._record.metadata)

    @property
    def record(self) -> RunRecord:
        """All of run.json."""
        return self._record

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings in config.yaml."""
        return read_config(self.folder)

    @property
    def silent_for_s(self) -> float | None:
        """Seconds since the last sign of life of a run that says 'running' but has long been quiet; else None.

        A run whose folder a process holds is not silent, however long a step of it takes.
        """
        quiet_s = _quiet_for_s(self._record)
        return None if quiet_s is None or self._claim or is_claimed(self.folder) else quiet_s

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one line of scalars, on its way to disk when this returns. DataError when it cannot be written."""
        if reserved := {STEP, TIME} & metrics.keys():
            raise ValueError(f"a metric cannot be named {sorted(reserved)[0]!r}")
        values = {key: float(value) for key, value in metrics.items()}
        append_line(self.paths.metrics, json.dumps({STEP: int(step), TIME: round(time.time(), 3), **values}))
        self.beat()

    def picture(self, key: str, step: int, pixels: npt.NDArray[np.uint8]) -> Path:
        """Writes pictures/<key>/<step>.png, where key is like 'case-01/reconstruction'.

        pixels: (H, W, 3) uint8, already windowed. DataError when it cannot be written.
        """
        path = picture_path(self.paths.pictures, key, step)
        write_png(path, pixels)
        return path

    def metrics(self) -> list[dict[str, Any]]:
        """All lines, each with 'step', 'time' and its scalars, in the order in which they were written."""
        return read_metrics(self.paths.metrics)

    def pictures(self) -> list[Picture]:
        """All pictures, by key and step."""
        return list_pictures(self.paths.pictures)

    def update(self, **metadata: Any) -> None:
        """Adds to the metadata in run.json, or replaces them key by key."""
        with self._lock:
            self._refresh()
            self._write(metadata={**self._record.metadata, **plain(metadata)})

    def note(self, text: str) -> None:
        """Appends to log.txt with the time. Say no path of a scan and no name here."""
        append_line(self.paths.log, f"{now():%Y-%m-%d %H:%M:%S} {text}")

    def beat(self) -> None:
        """Shows that the training lives; cheap to call every step, written every 30 s. `log` calls it.

        Nothing where another process does the writing, as on ranks above 0.
        """
        if self._claim and time.monotonic() - self._last_beat_s >= HEARTBEAT_S:
            with self._lock:
                self._write()

    def finish(self, status: Status, *, reason: str | None = None) -> None:
        """Sets how the run ended and gives the folder back to other writers.

        `reason` must name no file and no person.
        """
        if status not in get_args(Status):
            raise ValueError(f"status is {status!r}; it is one of {', '.join(get_args(Status))}")
        ended = now()
        with self._lock:
            self._write(status=status, reason=reason, finished=ended, heartbeat=ended)
        if self._claim:
            self._claim.release()
            self._claim = None

    @contextlib.contextmanager
    def recording(self) -> Iterator["Run"]:
        """Sets the status when the block ends: finished, failed on an error, killed on Ctrl-C or SIGTERM.

        Whatever was raised goes on. A block that calls `finish` itself keeps its own status.
        """
        with finish_at_end(self.finish, is_open=lambda: self.status == "running"):
            yield self

    def _refresh(self) -> None:
        """What others have written since; a training that holds the claim is the only one who writes."""
        if not self._claim:
            self._record = read_record(self.folder)

    def _write(self, **fields: Any) -> None:
        """Write the record. Callers hold the lock, or alone know this run; only the training sends a heartbeat."""
        life = {"heartbeat": now()} if self._claim else {}
        record = self._record.model_copy(update={**life, **fields})
        write_record(self.folder, record)
        self._record, self._last_beat_s = record, time.monotonic()


def _quiet_for_s(record: RunRecord) -> float | None:
    quiet_s = (now() - record.heartbeat).total_seconds()
    return quiet_s if record.status == "running" and quiet_s > SILENT_AFTER_S else None
