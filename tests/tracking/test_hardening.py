"""The mirror after kills, beside other writers, with names that MLflow refuses, and with weights to rank."""

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_for

from medssl.config import TrackingConfig
from medssl.errors import TrackingError
from medssl.runs.run import Run
from medssl.tracking.client import connect, quiet_mlflow
from medssl.tracking.mirror import Mirror
from medssl.tracking.sync import sync
from medssl.tracking.workspace import TrackingStore, tracking_store
from medssl_cli.commands.runs import runs
from medssl_cli.commands.sync import sync as send

SECRET = "DOE-JOHN-19700101"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """One database for the whole file: the first contact with one is slow."""
    return tmp_path_factory.mktemp("workspace")


def make_run(workspace: Path, name: str, **facts: object) -> Run:
    config = {"tracking": TrackingConfig().model_dump(mode="json"), "optim": {"lr": 0.001}}
    run = Run.create(workspace / name, kind="finetune", config=config, metadata={"cohort_digest": "abc123", **facts})
    run.log(1, {"train/loss": 1.0})
    return run


def client(workspace: Path):
    quiet_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")


def test_sync_accepts_any_metric_and_picture_name(workspace):
    run = make_run(workspace, "odd")
    run.log(2, {"loss (kl) @ 50%": 0.5, "train/loss": 0.9, "nan": float("nan")})
    run.picture("case:01/vue énergie", 2, np.zeros((4, 4, 3), np.uint8))
    run.finish("finished")
    report = sync(run.folder)
    found = client(workspace).get_run(report.mlflow_run_id).data.metrics
    assert found["loss _kl_ _ 50_"] == 0.5
    assert found["train/loss"] == 0.9
    assert sync(run.folder).sent == 0


def test_logged_models_are_ranked_by_dice(workspace):
    for name, dice in (("worse", 0.6), ("better", 0.8)):
        run = make_run(workspace, name, scans=200)
        run.paths.model_weights.write_bytes(name.encode())
        run.log(2, {"test/dice": dice})
        run.finish("finished")
        report = sync(run.folder)
        assert sync(run.folder).sent == 0
    found = client(workspace)
    experiment = found.get_experiment_by_name("medssl").experiment_id
    ranked = found.search_logged_models(
        [experiment], order_by=[{"field_name": "metrics.test/dice", "ascending": False, "dataset_name": "cohort"}]
    )
    assert [entry.name for entry in ranked][:2] == ["better", "worse"]
    assert ranked[0].tags["medssl.sha256"] == hashlib.sha256(b"better").hexdigest()
    assert str(ranked[0].status) == "READY"
    (data,) = found.get_run(report.mlflow_run_id).inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("cohort", "abc123")
    assert {tag.key: tag.value for tag in data.tags}["scans"] == "200"
    assert "0.800" in found.get_run(report.mlflow_run_id).data.tags["mlflow.note.content"]


def test_sync_finds_run_without_recorded_id(workspace):
    run = make_run(workspace, "unnoted")
    run.finish("finished")
    first = sync(run.folder)
    Run.open(run.folder).update(mlflow_run_id=None)
    assert sync(run.folder).mlflow_run_id == first.mlflow_run_id


TRAINING = """
import sys, time
from pathlib import Path
from medssl.config import TrackingConfig
from medssl.runs.run import Run
from medssl.tracking.mirror import Mirror
settings = TrackingConfig()
run = Run.create(Path(sys.argv[1]), kind="pretrain", config={"tracking": settings.model_dump(mode="json")})
with Mirror(run, settings=settings, every_s=0.05), run.recording():
    for step in range(1, 100000):
        run.log(step, {"train/loss": 1.0 / step})
        time.sleep(0.002)
"""


def test_sync_after_kill_sends_all_logged_values(workspace):
    folder = workspace / "killed"
    training = subprocess.Popen([sys.executable, "-c", TRAINING, str(folder)], env=os.environ)
    try:
        wait_for(lambda: (folder / "run.json").exists() and "mlflow_run_id" in Run.open(folder).metadata)
        time.sleep(0.3)
    finally:
        training.send_signal(signal.SIGKILL)
        training.wait()
    lines = Run.open(folder).metrics()
    report = sync(folder)
    history = client(workspace).get_metric_history(report.mlflow_run_id, "train/loss")
    steps = sorted(metric.step for metric in history)
    assert steps == sorted(set(steps))
    # Beyond 1000 lines the mirror thins out; a killed run's last line is always there.
    assert steps[:1000] == [line["step"] for line in lines][:1000]
    assert steps[-1] == lines[-1]["step"]
    assert sync(folder).sent == 0


@pytest.mark.slow  # MLflow itself waits 20 s for the lock
def test_sync_reports_locked_database(workspace, monkeypatch):
    """With what to do; the next sync succeeds."""
    run = make_run(workspace, "locked")
    run.finish("finished")
    sync(run.folder)
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    holder = sqlite3.connect(workspace / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(TrackingError, match="call this again"):
            sync(run.folder)
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert sync(run.folder).sent == 0


def test_fresh_workspace_serves_several_processes(tmp_path):
    for number in range(3):
        make_run(tmp_path, f"run{number}").finish("finished")
    code = "import sys; from pathlib import Path; from medssl.tracking.sync import sync; sync(Path(sys.argv[1]))"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / f"run{number}")]) for number in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    found = client(tmp_path)
    assert len(found.search_runs([found.get_experiment_by_name("medssl").experiment_id])) == 3


def test_log_data_retries_after_race(workspace, monkeypatch):
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    real, refused = MlflowClient.log_inputs, []

    def beaten_once(self, *arguments, **named):
        if not refused:
            refused.append(True)
            raise MlflowException("UNIQUE constraint failed: datasets.experiment_id, datasets.name, datasets.digest")
        real(self, *arguments, **named)

    run = make_run(workspace, "beaten")
    run.finish("finished")
    monkeypatch.setattr(MlflowClient, "log_inputs", beaten_once)
    (data,) = client(workspace).get_run(sync(run.folder).mlflow_run_id).inputs.dataset_inputs
    assert refused
    assert data.dataset.digest == "abc123"


def test_nothing_private_reaches_mlflow(tmp_path):
    path = f"/hospital/{SECRET}/scan.nii.gz"
    config = {
        "cohort": path,
        "init": SECRET,
        "task": {"name": "mine", "template": path, "deep": {"list": [path]}},
        "tracking": TrackingConfig().model_dump(mode="json"),
    }
    facts = {"task_origin": path, "labelled_scans": [path], "transfer": [{"what": path}], "cohort_digest": "abc"}
    run = Run.create(tmp_path / "run", kind="finetune", config=config, metadata=facts)

    def train() -> None:
        with run.recording():
            run.log(1, {"train/loss": 1.0})
            raise ValueError(f"{path} is damaged")

    with pytest.raises(ValueError, match="damaged"):
        train()
    sync(run.folder)
    written = [file for file in tmp_path.rglob("*") if file.is_file() and run.folder not in file.parents]
    assert (tmp_path / "mlflow.db") in written
    for file in [*written, run.paths.log, run.paths.metrics]:
        assert not file.exists() or SECRET.encode() not in file.read_bytes(), file
    assert SECRET not in str(Run.open(run.folder).record.reason)


def test_mirror_survives_broken_mlflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    run = make_run(tmp_path, "run")
    with Mirror(run, settings=TrackingConfig(), every_s=0.01, flush_s=10.0) as mirror, run.recording():
        run.log(2, {"train/loss": 0.5})
    assert mirror.failures > 0
    assert Run.open(run.folder).status == "finished"


def test_runs_lists_others_beside_damaged_run(tmp_path, capsys):
    make_run(tmp_path, "good")
    make_run(tmp_path, "bad")
    (tmp_path / "bad" / "run.json").write_text("{")
    runs(tmp_path, as_json=True)
    said = capsys.readouterr()
    assert [entry["run"] for entry in json.loads(said.out)] == ["good"]
    assert "damaged" in said.err


def test_password_of_store_is_never_shown(tmp_path, capsys, monkeypatch):
    make_run(tmp_path, "run").finish("finished")
    uri = "http://alice:hunter2@127.0.0.1:9"
    with pytest.raises(TrackingError, match=r"http://\*\*\*@127\.0\.0\.1:9 cannot be written") as caught:
        sync(tmp_path / "run", uri=uri)
    assert "hunter2" not in str(caught.value)
    local = tracking_store(tmp_path / "run", TrackingConfig())
    reached = TrackingStore(uri, local.artifacts, local=False)
    monkeypatch.setattr("medssl.tracking.replay.tracking_store", lambda folder, settings: reached)
    monkeypatch.setattr("medssl.tracking.replay.connect", lambda store: connect(local))
    send([tmp_path / "run"], uri=None)
    said = capsys.readouterr()
    assert "sent to http://***@127.0.0.1:9" in said.out
    assert "hunter2" not in said.out + said.err
