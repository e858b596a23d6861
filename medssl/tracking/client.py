"""The one place that imports MLflow."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from medssl.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from medssl.tracking.workspace import TrackingStore


def quiet_mlflow() -> None:
    """Keep MLflow from sending usage data and from retrying for minutes; must run before its first import.

    Variables that are set already win.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)


def connect(store: TrackingStore) -> MlflowClient:
    """A client of the store; its database is created where missing.

    Never use MLflow's fluent interface: it records the user's name and the script's path.
    """
    quiet_mlflow()
    from mlflow import MlflowClient

    from medssl.tracking.workspace import make_database

    make_database(store)
    return MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)


def experiment_id(client: MlflowClient, name: str, store: TrackingStore) -> str:
    """Id of the experiment, created where missing, with artifacts beside the database, not in the working directory.

    Raises TrackingError where it was deleted: MLflow reserves its name and accepts no runs.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(
                client.create_experiment(name, artifact_location=store.artifacts and f"{store.artifacts}/{name}")
            )
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"The experiment '{name}' was deleted in MLflow. "
            "Restore it there, or choose another name with tracking.experiment."
        )
    return str(experiment.experiment_id)
