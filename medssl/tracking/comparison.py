"""A label-efficiency folder in MLflow: a parent run whose curves run over the number of labelled scans."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.config import TrackingConfig
from medssl.errors import UsageError
from medssl.runs.run import Run
from medssl.tracking.answer import read_answer
from medssl.tracking.card import NOTE
from medssl.tracking.client import connect, experiment_id
from medssl.tracking.evidence import FILE_NAME, Evidence, as_markdown, read_evidence, verdict
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
    """Makes or refreshes the parent run of `children`, which MLflow has already.

    Returns the number of values sent, the parent's id and the store. A second call sends nothing. When seeds or label
    counts were added since, a new parent takes the place of the old one, which MLflow keeps among its deleted runs:
    values in MLflow cannot be changed.
    """
    evidence = read_evidence(folder)
    digest = hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest()[:32]
    store = tracking_store(children[0].folder, settings)
    client = connect(store)
    experiment = experiment_id(client, settings.experiment, store)
    parent, is_new = _parent(client, experiment, children[0], digest, name=folder.name)
    sent = _fill(client, parent, evidence, moment_ms=_ended_ms(children)) if is_new else 0
    for key, value in plain_tags(read_answer(folder)).items():
        client.set_tag(parent, key, value)
    for child in children:
        for found in client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{child.id}'"):
            client.set_tag(found.info.run_id, PARENT_TAG, parent)
    return sent, parent, store


def _parent(client: MlflowClient, experiment: str, first: Run, digest: str, *, name: str) -> tuple[str, bool]:
    """Id of the parent run with this content, and whether it is new; older contents are deleted."""
    known = ""
    for found in client.search_runs([experiment], f"tags.`{COMPARISON_TAG}` = '{first.id}'"):
        # A parent that was not finished was left half-made by a process that died.
        if found.data.tags.get(DIGEST_TAG) == digest and found.info.status == "FINISHED":
            known = str(found.info.run_id)
        else:
            client.delete_run(found.info.run_id)
    if known:
        return known, False
    tags = {COMPARISON_TAG: first.id, DIGEST_TAG: digest, "medssl.kind": "label-efficiency"}
    started_ms = int(first.record.started.timestamp() * 1000)
    return str(client.create_run(experiment, start_time=started_ms, run_name=name, tags=tags).info.run_id), True


def _fill(client: MlflowClient, parent: str, evidence: Evidence, *, moment_ms: int) -> int:
    from mlflow.entities import Metric, RunTag

    metrics = [Metric(key, value, moment_ms, labels) for key, value, labels in roll_up(evidence)]
    tags = {
        "medssl.verdict": verdict(evidence),
        "medssl.seeds": str(evidence.seeds),
        "medssl.test_scans": str(evidence.cases),
        NOTE: as_markdown(evidence),
    }
    client.log_batch(parent, metrics=metrics, tags=[RunTag(key, value[:TAG_LIMIT]) for key, value in tags.items()])
    client.set_terminated(parent, end_time=moment_ms)
    return len(metrics)


def roll_up(evidence: Evidence) -> Iterator[tuple[str, float, int]]:
    """(name, value, number of labelled scans): MLflow draws these as curves over labels, across runs too."""
    for line in evidence.lines:
        start = line.init
        yield metric_name(f"label_efficiency/dice/{start}"), line.dice[0], line.labels
        if line.false_alarms[1]:
            yield metric_name(f"label_efficiency/false_alarms/{start}"), line.false_alarms[0], line.labels
        for name, dice in line.classes.items():
            if dice is None:
                continue
            yield metric_name(f"label_efficiency/dice_class_{name}/{start}"), dice, line.labels
        if line.gain:
            for name, value in zip(("gain", "gain_low", "gain_high"), line.gain, strict=True):
                yield metric_name(f"label_efficiency/{name}/{start}"), value, line.labels


def _ended_ms(children: Sequence[Run]) -> int:
    return max(int(child.record.heartbeat.timestamp() * 1000) for child in children)
