"""What a run folder holds and MLflow does not yet: found by comparison, sent in batches, never sent twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.config import TrackingConfig
from medssl.runs.metrics import STEP, TIME
from medssl.runs.run import Run
from medssl.tracking.client import connect, experiment_id
from medssl.tracking.workspace import tracking_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

RUN_ID = "mlflow_run_id"
BATCH = 1000  # the most metrics that MLflow takes at once
PARAM_LIMIT = 6000
# Settings that hold paths: of the hospital's disk, not of the experiment.
PRIVATE_SETTINGS = {"cohort", "init", "plugins", "tracking.uri"}
# How `MlflowClient.log_image` names files: KEY+step+STEP+timestamp+..., with '/' of the key as '~' or '#', and '%' for
# '+' in older releases.
_LOGGED_IMAGE = re.compile(r"(.+)[+%]step[+%](\d+)[+%]timestamp")
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class Replay:
    """One run folder and its run in MLflow.

    What MLflow has is asked once, per metric and picture; so that a replay after a crash, a resume or a lost server
    adds what is missing and nothing twice.
    """

    def __init__(self, run: Run, settings: TrackingConfig) -> None:
        """Connects, and makes the MLflow run where there is none. Raises what MLflow raises."""
        self.run = run
        self.store = tracking_store(run.folder, settings)
        self.client = connect(self.store)
        self.sends_pictures = settings.pictures == "on" or (settings.pictures == "auto" and self.store.local)
        self.mlflow_run_id = self._find_or_create(settings.experiment)
        self._last_step = self._steps_in_mlflow()
        self._pictures = self._pictures_in_mlflow()

    def push(self) -> int:
        """Send what is new; the number of metric values and pictures sent."""
        sent = self._push_metrics()
        if self.sends_pictures:
            sent += self._push_pictures()
        return sent

    def conclude(self) -> None:
        """Set status and tags as run.json has them now."""
        record = Run.open(self.run.folder).record
        for key, value in _tags(record.facts, status=record.status, resumes=len(record.resumes)).items():
            self.client.set_tag(self.mlflow_run_id, key, value)
        if record.status == "running":
            self.client.update_run(self.mlflow_run_id, status="RUNNING")
        else:
            self.client.set_terminated(self.mlflow_run_id, status=STATUS[record.status])

    def _find_or_create(self, experiment: str) -> str:
        known = self.run.facts.get(RUN_ID)
        if known and _exists(self.client, str(known)):
            self.client.update_run(str(known), status="RUNNING")
            return str(known)
        record = self.run.record
        created = self.client.create_run(
            experiment_id(self.client, experiment, self.store),
            run_name=self.run.folder.name,
            start_time=int(record.started.timestamp() * 1000),
            tags=_tags(record.facts, status=record.status, resumes=len(record.resumes)) | {"medssl.run": record.id},
        )
        from mlflow.entities import Param

        params = [Param(key, value[:PARAM_LIMIT]) for key, value in flat_settings(self.run.config)]
        for start in range(0, len(params), 100):
            self.client.log_batch(created.info.run_id, params=params[start : start + 100])
        run_id = str(created.info.run_id)
        self.run.update(**{RUN_ID: run_id})
        return run_id

    def _steps_in_mlflow(self) -> dict[str, int]:
        known = self.client.get_run(self.mlflow_run_id).data.metrics
        return {key: max(m.step for m in self.client.get_metric_history(self.mlflow_run_id, key)) for key in known}

    def _push_metrics(self) -> int:
        from mlflow.entities import Metric

        new: list[Metric] = []
        for line in self.run.metrics():
            step, moment = int(line[STEP]), int(line[TIME] * 1000)
            for key, value in line.items():
                if key not in (STEP, TIME) and step > self._last_step.get(key, -1):
                    new.append(Metric(key, float(value), moment, step))
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            self.client.log_batch(self.mlflow_run_id, metrics=part)
            for metric in part:
                self._last_step[metric.key] = max(metric.step, self._last_step.get(metric.key, -1))
        return len(new)

    def _pictures_in_mlflow(self) -> set[tuple[str, int]]:
        names = [Path(item.path).name for item in self.client.list_artifacts(self.mlflow_run_id, "images")]
        found = [_LOGGED_IMAGE.match(name) for name in names if name.endswith(".png")]
        return {(re.sub("[~#]", "/", match[1]), int(match[2])) for match in found if match}

    def _push_pictures(self) -> int:
        from PIL import Image

        sent = 0
        for picture in self.run.pictures():
            name = (picture.key, picture.step)
            if name not in self._pictures:
                with Image.open(picture.path) as image:
                    pixels = np.asarray(image.convert("RGB"))
                self.client.log_image(self.mlflow_run_id, pixels, key=picture.key, step=picture.step)
                self._pictures.add(name)
                sent += 1
        return sent


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`optim.lr` and its value as text, without the settings that hold paths."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in PRIVATE_SETTINGS:
            continue
        if isinstance(value, Mapping) and value:
            yield from flat_settings(value, f"{name}.")
        else:
            yield name, str(value)


def _tags(facts: Mapping[str, Any], *, status: str, resumes: int) -> dict[str, str]:
    plain = {f"medssl.{key}": str(value) for key, value in facts.items() if isinstance(value, str | int | float | bool)}
    plain.pop(f"medssl.{RUN_ID}", None)
    parent = {"mlflow.parentRunId": str(facts["mlflow_parent"])} if "mlflow_parent" in facts else {}
    return {"medssl.status": status, "medssl.resumes": str(resumes)} | plain | parent


def _exists(client: MlflowClient, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return False
        raise
    return True
