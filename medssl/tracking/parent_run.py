"""A label-efficiency folder in MLflow: a parent run whose curves run over the number of labelled scans."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.config import TrackingConfig
from medssl.downstream.comparison import FILE_NAME, Comparison
from medssl.errors import UsageError
from medssl.runs.run import Run
from medssl.tracking.answer import read_answer
from medssl.tracking.card import NOTE
from medssl.tracking.client import connect, experiment_id
from medssl.tracking.conclusion import conclusion, conclusion_card
from medssl.tracking.naming import TAG_LIMIT, metric_name, plain_tags
from medssl.tracking.replay import RUN_TAG
from medssl.tracking.workspace import TrackingStore, tracking_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

COMPARISON_TAG, DIGEST_TAG, PARENT_TAG = "medssl.comparison", "medssl.digest", "mlflow.parentRunId"


def fine_tunings(folder: Path) -> list[Run]:
    """The runs of a label-efficiency folder, oldest first. UsageError when it has none."""
    runs = [Run.open(path.parent) for path in sorted((folder / "runs").glob("*/run.json"))]
    if not runs:
        raise UsageError(f"{folder} holds no runs. Give a run, or a folder that `medssl label-efficiency` wrote.")
    return sorted(runs, key=lambda run: run.record.started)


def push_comparison(folder: Path, children: Sequence[Run], settings: TrackingConfig) -> tuple[int, str, TrackingStore]:
    """Make or refresh the parent run of `children`, which are in MLflow already.

    A second call sends nothing. Where seeds or numbers of labelled scans were added since, a new parent replaces the
    old one, which stays among MLflow's deleted runs: values in MLflow cannot be changed.

    Returns:
        The number of values sent, the parent's id, and the store.
    """
    comparison = Comparison.read(folder)
    digest = hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest()[:32]
    store = tracking_store(children[0].folder, settings)
    client = connect(store)
    experiment = experiment_id(client, settings.experiment, store)
    parent, is_new = _parent(client, experiment, children[0], digest, name=folder.name)
    sent = _fill(client, parent, comparison, ended_ms=_ended_ms(children)) if is_new else 0
    for key, value in plain_tags(read_answer(folder)).items():
        client.set_tag(parent, key, value)
    for child in children:
        for mirrored in client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{child.id}'"):
            client.set_tag(mirrored.info.run_id, PARENT_TAG, parent)
    return sent, parent, store


def _parent(client: MlflowClient, experiment: str, first: Run, digest: str, *, name: str) -> tuple[str, bool]:
    """Id of the parent run with this content, and whether it is new; older contents are deleted."""
    current = ""
    for parent in client.search_runs([experiment], f"tags.`{COMPARISON_TAG}` = '{first.id}'"):
        # An unfinished parent was left half-made by a process that died.
        if parent.data.tags.get(DIGEST_TAG) == digest and parent.info.status == "FINISHED":
            current = str(parent.info.run_id)
        else:
            client.delete_run(parent.info.run_id)
    if current:
        return current, False
    tags = {COMPARISON_TAG: first.id, DIGEST_TAG: digest, "medssl.kind": "label-efficiency"}
    started_ms = int(first.record.started.timestamp() * 1000)
    return str(client.create_run(experiment, start_time=started_ms, run_name=name, tags=tags).info.run_id), True


def _fill(client: MlflowClient, parent: str, comparison: Comparison, *, ended_ms: int) -> int:
    from mlflow.entities import Metric, RunTag

    metrics = [Metric(key, value, ended_ms, step) for key, value, step in roll_up(comparison)]
    tags = {
        "medssl.conclusion": conclusion(comparison),
        "medssl.seeds": str(comparison.num_seeds),
        "medssl.test_scans": str(comparison.num_cases),
        NOTE: conclusion_card(comparison),
    }
    client.log_batch(parent, metrics=metrics, tags=[RunTag(key, value[:TAG_LIMIT]) for key, value in tags.items()])
    client.set_terminated(parent, end_time=ended_ms)
    return len(metrics)


def roll_up(comparison: Comparison) -> Iterator[tuple[str, float, int]]:
    """(name, value, number of labelled scans): as the step, the number makes MLflow draw curves over labelled scans."""
    for row in comparison.rows:
        values: dict[str, float | None] = {"dice": row.dice.mean}
        values |= {"false_alarms": row.false_alarms} if row.empty else {}
        values |= {f"dice_class_{label}": dice for label, dice in row.class_dice.items()}
        if row.gain:
            values |= {"gain": row.gain.mean, "gain_low": row.gain.low, "gain_high": row.gain.high}
        for name, value in values.items():
            if value is not None:
                yield metric_name(f"label_efficiency/{name}/{row.init}"), value, row.num_labelled


def _ended_ms(children: Sequence[Run]) -> int:
    return max(int(child.record.heartbeat.timestamp() * 1000) for child in children)
