"""Sends to MLflow what a run folder has and MLflow lacks: in batches, and nothing twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.config import TrackingConfig
from medssl.runs.metrics_log import STEP, TIME, MetricsTail
from medssl.runs.run import Run
from medssl.tracking.card import NOTE, run_card
from medssl.tracking.client import connect, experiment_id
from medssl.tracking.lineage import log_data, log_weights
from medssl.tracking.naming import metric_name, picture_name, plain_tags, setting_params
from medssl.tracking.workspace import tracking_store

if TYPE_CHECKING:
    from mlflow.entities import Metric

RUN_ID = "mlflow_run_id"
MAX_METRICS, MAX_PARAMS = 1000, 100  # that MLflow accepts in one batch
# Charts of MLflow freeze at some 10,000 points a line (mlflow#9779): of the values beyond 1000, ever fewer are sent.
# metrics.jsonl has all of them.
DENSE_POINTS = 1000
RUN_TAG = "medssl.run"
# How `MlflowClient.log_image` names files: KEY+step+STEP+timestamp+..., with '/' of the key as '~' or '#', and '%' for
# '+' in older releases.
_LOGGED_IMAGE = re.compile(r"(.+)[+%]step[+%](\d+)[+%]timestamp")
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class Replay:
    """One run folder and its run in MLflow.

    At the start, MLflow is asked for the last step of each metric and for its pictures. So a replay after a crash, a
    resume or a lost server adds what is missing, and nothing twice.
    """

    def __init__(self, run: Run, settings: TrackingConfig) -> None:
        """Connect, and create the MLflow run where missing. Raises what MLflow raises."""
        self.run = run
        self.store = tracking_store(run.folder, settings)
        self.client = connect(self.store)
        self.sends_pictures = settings.pictures == "on" or (settings.pictures == "auto" and self.store.local)
        self.mlflow_run_id = self._find_or_create(settings.experiment)
        self._last_step = self._steps_in_mlflow()
        self._tail = MetricsTail(run.paths.metrics)
        self._seen: Counter[str] = Counter()
        self._unsent: list[Metric] = []
        self._latest: dict[str, Metric] = {}
        self._pictures = self._pictures_in_mlflow()

    def push(self) -> int:
        """Send what is new; the number of metric values and pictures sent."""
        self._read_metrics()
        sent = self._push_metrics()
        if self.sends_pictures:
            sent += self._push_pictures()
        return sent

    def conclude(self) -> int:
        """Set status, tags, card, data and weights as the folder has them now; the number of metric values sent.

        The table of runs shows the value of the largest step, so every metric's last one is sent, thinned out or not.
        """
        self._unsent += [m for m in self._latest.values() if m.step > self._last_step.get(m.key, -1)]
        sent = self._push_metrics()
        run = Run.open(self.run.folder)
        for key, value in (_tags(run) | {NOTE: run_card(run)}).items():
            self.client.set_tag(self.mlflow_run_id, key, value)
        log_data(self.client, run, self.mlflow_run_id)
        log_weights(self.client, run, self.mlflow_run_id)
        record = run.record
        if record.status == "running":
            self.client.update_run(self.mlflow_run_id, status="RUNNING")
        else:
            ended = int((record.finished or record.heartbeat).timestamp() * 1000)
            self.client.set_terminated(self.mlflow_run_id, status=STATUS[record.status], end_time=ended)
        return sent

    def _find_or_create(self, experiment: str) -> str:
        recorded = self.run.metadata.get(RUN_ID)
        run_id = str(recorded) if recorded and self._is_active(str(recorded)) else self._find_by_tag(experiment)
        if run_id is None:
            run_id = self._create(experiment)
        else:
            self.client.update_run(run_id, status="RUNNING")
        self._log_settings(run_id)
        if run_id != recorded:
            self.run.update(**{RUN_ID: run_id})
        return run_id

    def _is_active(self, run_id: str) -> bool:
        """Whether MLflow has the run, not deleted, and it belongs to this run and not to one that this is a copy of."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            mirrored = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return False
            raise
        return bool(mirrored.info.lifecycle_stage == "active" and mirrored.data.tags.get(RUN_TAG) == self.run.id)

    def _find_by_tag(self, experiment: str) -> str | None:
        """A run that run.json does not name: the process died before it was written, or another store was used."""
        experiments = [experiment_id(self.client, experiment, self.store)]
        mirrored = self.client.search_runs(experiments, f"tags.`{RUN_TAG}` = '{self.run.id}'", max_results=1)
        return str(mirrored[0].info.run_id) if mirrored else None

    def _create(self, experiment: str) -> str:
        created = self.client.create_run(
            experiment_id(self.client, experiment, self.store),
            run_name=self.run.folder.name,
            start_time=int(self.run.record.started.timestamp() * 1000),
            tags=_tags(self.run) | {RUN_TAG: self.run.id},
        )
        return str(created.info.run_id)

    def _log_settings(self, run_id: str) -> None:
        """Send settings that MLflow lacks. It refuses to change one; config.yaml has those of the last resume."""
        from mlflow.entities import Param

        logged = self.client.get_run(run_id).data.params
        params = [Param(key, value) for key, value in setting_params(self.run.config).items() if key not in logged]
        for start in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(run_id, params=params[start : start + MAX_PARAMS])

    def _steps_in_mlflow(self) -> dict[str, int]:
        logged = self.client.get_run(self.mlflow_run_id).data.metrics
        return {key: max(m.step for m in self.client.get_metric_history(self.mlflow_run_id, key)) for key in logged}

    def _read_metrics(self) -> None:
        for line in self._tail.read():
            for metric in _values(line):
                number = self._seen[metric.key]
                self._seen[metric.key] += 1
                self._latest[metric.key] = metric
                if is_sent(number):
                    self._unsent.append(metric)

    def _push_metrics(self) -> int:
        # By step and not by count: a resume writes steps again that MLflow has already, and a thinned line has gaps.
        new = [metric for metric in self._unsent if metric.step > self._last_step.get(metric.key, -1)]
        for start in range(0, len(new), MAX_METRICS):
            batch = new[start : start + MAX_METRICS]
            self.client.log_batch(self.mlflow_run_id, metrics=batch)
            for metric in batch:
                self._last_step[metric.key] = max(metric.step, self._last_step.get(metric.key, -1))
        self._unsent.clear()
        return len(new)

    def _pictures_in_mlflow(self) -> set[tuple[str, int]]:
        names = [Path(item.path).name for item in self.client.list_artifacts(self.mlflow_run_id, "images")]
        matches = [_LOGGED_IMAGE.match(name) for name in names if name.endswith(".png")]
        return {(re.sub("[~#]", "/", match[1]), int(match[2])) for match in matches if match}

    def _push_pictures(self) -> int:
        from PIL import Image

        sent = 0
        for picture in self.run.pictures():
            name = (picture_name(picture.key), picture.step)
            if name not in self._pictures:
                with Image.open(picture.path) as image:
                    pixels = np.asarray(image.convert("RGB"))
                self.client.log_image(self.mlflow_run_id, pixels, key=name[0], step=name[1])
                self._pictures.add(name)
                sent += 1
        return sent


def is_sent(number: int) -> bool:
    """Whether the value with this number (from 0) is sent: each of the first 1000, then 250 for every doubling."""
    if number < DENSE_POINTS:
        return True
    doublings = (number // DENSE_POINTS).bit_length() - 1
    return number % (4 << doublings) == 0


def _values(line: Mapping[str, Any]) -> Iterator[Metric]:
    from mlflow.entities import Metric

    for key, value in line.items():
        if key not in (STEP, TIME):
            yield Metric(metric_name(key), float(value), int(line[TIME] * 1000), int(line[STEP]))


def _tags(run: Run) -> dict[str, str]:
    metadata, record = run.metadata, run.record
    parent = {"mlflow.parentRunId": str(metadata.pop("mlflow_parent"))} if "mlflow_parent" in metadata else {}
    metadata.pop(RUN_ID, None)
    about = {"medssl.kind": run.kind, "medssl.status": run.status, "medssl.resumes": str(len(record.resumes))}
    # Safe to send: the class of the error and a place in a package, see medssl.runs.ending.
    reason = {"medssl.reason": record.reason} if record.reason else {}
    origin = {"medssl.resumed_from": record.resumed_from} if record.resumed_from else {}
    return plain_tags(metadata) | about | reason | parent | origin
