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

    The environment wins where it says otherwise.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)


def connect(store: TrackingStore) -> MlflowClient:
    """A client of the store, whose database exists afterwards. Never the fluent interface: it notes user and script."""
    quiet_mlflow()
    from mlflow import MlflowClient

    from medssl.tracking.workspace import make_database

    make_database(store)
    return MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)


def experiment_id(client: MlflowClient, name: str, store: TrackingStore) -> str:
    """Id of the experiment, made where it is missing; its artifacts lie beside the database, not in the working
    directory. Raises TrackingError when somebody deleted it: MLflow keeps its name and takes no runs.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(
                client.create_experiment(name, artifact_location=store.artifacts and f"{store.artifacts}/{name}")
            )
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"The experiment '{name}' was deleted in MLflow. "
            "Restore it there, or choose another name with tracking.experiment."
        )
    return str(found.experiment_id)
