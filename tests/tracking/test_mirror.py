"""MLflow has what the run folder has: once, completely, and without anything that identifies a patient."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_for

from medssl.config import TrackingConfig
from medssl.errors import TrackingError
from medssl.runs.run import Run
from medssl.tracking.client import quiet_mlflow
from medssl.tracking.mirror import Mirror
from medssl.tracking.sync import sync

SETTINGS = TrackingConfig()
SECRET = "DOE-JOHN-19700101"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def make_run(workspace: Path, name: str = "masked", steps: int = 30) -> Run:
    config = {
        "cohort": f"/hospital/{SECRET}/cohort",
        "optim": {"lr": 0.001},
        "tracking": SETTINGS.model_dump(mode="json"),
    }
    run = Run.create(workspace / name, kind="pretrain", config=config, metadata={"task": "masked-volume"})
    log_steps(run, range(1, steps + 1))
    run.picture("case-01/views", 1, np.full((8, 8, 3), 100, np.uint8))
    return run


def log_steps(run: Run, steps: range) -> None:
    for step in steps:
        run.log(step, {"train/loss": 1.0 / step, "collapse/feature_std": 0.5})


def client_of(workspace: Path):
    quiet_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")


def only_run(workspace: Path):
    client = client_of(workspace)
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return client, found


def history(workspace: Path, key: str = "train/loss") -> list[tuple[int, float]]:
    client, found = only_run(workspace)
    return sorted((m.step, m.value) for m in client.get_metric_history(found.info.run_id, key))


def test_mirror_sends_whole_run(tmp_path):
    run = make_run(tmp_path)
    with Mirror(run, settings=SETTINGS, every_s=0.05), run.recording():
        log_steps(run, range(31, 41))
    assert history(tmp_path) == [(step, pytest.approx(1.0 / step)) for step in range(1, 41)]
    client, found = only_run(tmp_path)
    assert found.info.status == "FINISHED"
    assert found.data.params["optim.lr"] == "0.001"
    assert found.data.tags["medssl.task"] == "masked-volume"
    images = [item.path for item in client.list_artifacts(found.info.run_id, "images") if item.path.endswith(".png")]
    assert len(images) == 1


def test_mirror_marks_failed_run(tmp_path):
    run = make_run(tmp_path)

    def train() -> None:
        with Mirror(run, settings=SETTINGS), run.recording():
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train()
    assert only_run(tmp_path)[1].info.status == "FAILED"


def test_sync_sends_missing_values_once(tmp_path):
    run = make_run(tmp_path)
    run.finish("finished")
    assert sync(run.folder).sent == 2 * 30 + 1
    assert sync(run.folder).sent == 0
    assert len(history(tmp_path)) == 30


def test_mirror_continues_resumed_run_without_repeats(tmp_path):
    run = make_run(tmp_path)
    run.finish("killed")
    sync(run.folder)
    again = Run.resume(run.folder, at_step=20)  # steps 21 to 30 are made a second time
    with Mirror(again, settings=SETTINGS, every_s=0.05), again.recording():
        log_steps(again, range(21, 51))
    assert [step for step, _ in history(tmp_path)] == list(range(1, 51))


def test_mirror_survives_unreachable_store(tmp_path):
    run = make_run(tmp_path)
    settings = TrackingConfig(uri="http://127.0.0.1:9")  # nobody listens at the discard port
    with Mirror(run, settings=settings, every_s=0.01, flush_s=20.0) as mirror, run.recording():
        for step in range(31, 60):
            log_steps(run, range(step, step + 1))
    assert mirror.failures > 0
    assert Run.open(run.folder).status == "finished"
    assert "medssl sync" in run.paths.log.read_text()


def test_mirror_sends_no_archive_path(tmp_path):
    run = make_run(tmp_path)
    with Mirror(run, settings=SETTINGS), run.recording():
        pass
    database = sqlite3.connect(tmp_path / "mlflow.db")
    text = "\n".join(database.iterdump())
    database.close()
    assert SECRET not in text
    assert "mlflow.user" not in text
    assert not [p for p in (tmp_path / "mlartifacts").rglob("*") if SECRET.encode() in p.name.encode()]


def test_workspace_has_one_database_at_any_depth(tmp_path):
    for folder in (tmp_path, tmp_path / "evidence" / "runs"):
        run = make_run(folder, name="one")
        run.finish("finished")
        sync(run.folder)
    assert [p.parent for p in tmp_path.rglob("mlflow.db")] == [tmp_path]


def test_remote_store_gets_pictures_only_on_request(tmp_path, monkeypatch):
    from medssl.tracking import workspace

    run = make_run(tmp_path)
    local = workspace.tracking_store(run.folder, SETTINGS)
    remote = workspace.TrackingStore(local.uri, local.artifacts, local=False)
    workspace.make_database(local)
    monkeypatch.setattr("medssl.tracking.replay.tracking_store", lambda folder, settings: remote)
    run.finish("finished")
    assert sync(run.folder).sent == 60
    assert sync(run.folder, pictures="on").sent == 1


def test_sync_sends_deleted_run_again(tmp_path):
    run = make_run(tmp_path)
    run.finish("finished")
    deleted = sync(run.folder).mlflow_run_id
    client_of(tmp_path).delete_run(deleted)
    report = sync(run.folder)
    assert report.mlflow_run_id != deleted
    assert report.sent == 2 * 30 + 1
    assert sync(run.folder).sent == 0


def test_sync_names_deleted_experiment(tmp_path):
    run = make_run(tmp_path)
    run.finish("finished")
    sync(run.folder)
    client = client_of(tmp_path)
    client.delete_experiment(client.get_experiment_by_name("medssl").experiment_id)
    with pytest.raises(TrackingError, match=r"'medssl' was deleted .* Restore it there, or .* tracking\.experiment"):
        sync(run.folder)
    again = Run.resume(run.folder, at_step=30)
    with Mirror(again, settings=SETTINGS, every_s=0.01) as mirror, again.recording():
        wait_for(lambda: mirror.failures >= 3)
    assert "'medssl' was deleted" in again.paths.log.read_text()


def test_continued_copy_gets_new_mlflow_run(tmp_path):
    run = make_run(tmp_path)
    run.finish("killed")
    original = sync(run.folder).mlflow_run_id
    shutil.copytree(run.folder, tmp_path / "copy")
    assert sync(tmp_path / "copy").sent == 0  # as long as it only is the same
    copy = Run.resume(tmp_path / "copy", at_step=30)
    log_steps(copy, range(31, 41))
    copy.finish("finished")
    report = sync(copy.folder)
    assert report.mlflow_run_id != original
    client = client_of(tmp_path)
    assert len(client.get_metric_history(original, "train/loss")) == 30
    assert len(client.get_metric_history(report.mlflow_run_id, "train/loss")) == 40
    assert client.get_run(report.mlflow_run_id).data.tags["medssl.resumed_from"] == run.id
