"""The lineage of a run in MLflow: the data that it read, and its weights as a LoggedModel that can be ranked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.runs.run import Run
from medssl.tracking.naming import NAME_LIMIT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

DATASET = "cohort"
_DIGEST_LIMIT = 36
_SCORE = "test/dice"


def log_data(client: MlflowClient, run: Run, mlflow_run_id: str) -> None:
    """Log the cohort as an input of the run: its digest and the number of scans, never a path.

    MLflow keeps one dataset per name and digest, and its profile would be that of the first run; so the counts are tags
    of this run's input. A second call adds nothing.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    digest = run.metadata.get("cohort_digest")
    if not digest:
        return
    tags = [InputTag("mlflow.data.context", run.kind)]
    if "scans" in run.metadata:
        tags.append(InputTag("scans", str(run.metadata["scans"])))
    if "labelled_scans" in run.metadata:
        tags.append(InputTag("labelled_scans", str(len(run.metadata["labelled_scans"]))))
    inputs = [DatasetInput(Dataset(DATASET, str(digest)[:_DIGEST_LIMIT], "medssl", "{}"), tags)]
    try:
        client.log_inputs(mlflow_run_id, datasets=inputs)
    except MlflowException:
        # MLflow looks the dataset up and creates it in two steps. A run of the same cohort came in between; now the
        # look-up finds the dataset of that run.
        client.log_inputs(mlflow_run_id, datasets=inputs)


def log_weights(client: MlflowClient, run: Run, mlflow_run_id: str) -> None:
    """Log the weights of a finished run as a LoggedModel with their SHA-256 and, where there is one, their test Dice.

    The file stays in the run folder. A second call adds nothing.
    """
    weights = next((path for path in (run.paths.model_weights, run.paths.encoder_weights) if path.exists()), None)
    if run.status != "finished" or weights is None:
        return
    experiment = client.get_run(mlflow_run_id).info.experiment_id
    digest = sha256(weights)
    models = client.search_logged_models([experiment], filter_string=f"source_run_id = '{mlflow_run_id}'")
    existing = next((model for model in models if model.tags.get("medssl.sha256") == digest), None)
    if existing and existing.status == "READY":
        return
    # A model that a killed process left half-made is completed.
    model = existing or client.create_logged_model(
        experiment,
        name=_model_name(run),
        source_run_id=mlflow_run_id,
        tags={"medssl.sha256": digest, "medssl.file": weights.name, "medssl.run": run.id},
        model_type=weights.stem,
    )
    _log_score(client, run, mlflow_run_id, model)
    client.finalize_logged_model(model.model_id, "READY")


def _log_score(client: MlflowClient, run: Run, mlflow_run_id: str, model: LoggedModel) -> None:
    scored = [line for line in run.metrics() if _SCORE in line]
    if scored:
        digest = run.metadata.get("cohort_digest")
        dataset = {"dataset_name": DATASET, "dataset_digest": str(digest)[:_DIGEST_LIMIT]} if digest else {}
        last = scored[-1]
        client.log_metric(
            mlflow_run_id,
            _SCORE,
            float(last[_SCORE]),
            timestamp=int(last["time"] * 1000),
            step=int(last["step"]),
            model_id=model.model_id,
            **dataset,
        )


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model_name(run: Run) -> str:
    # MLflow refuses these in names of models; the folder's name is the user's.
    return "".join("-" if letter in "/:.%\"'" else letter for letter in run.folder.name)[:NAME_LIMIT]
