"""The run folder: what is written stays, what was half-written does not count, and the ending is always told."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from medssl.errors import DataError, UsageError
from medssl.runs.ending import describe
from medssl.runs.metrics_log import MetricsTail
from medssl.runs.run import Run

CONFIG = {"optim": {"lr": 1e-3}, "patch": [8, 16, 12]}


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "run", kind="pretrain", config=CONFIG, metadata={"task": "masked-volume"})


def test_create_writes_run_that_opens(run):
    found = Run.open(run.folder)
    assert (found.id, found.kind, found.status) == (run.id, "pretrain", "running")
    assert found.metadata == {"task": "masked-volume"}
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == CONFIG


def test_create_refuses_occupied_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        Run.create(tmp_path, kind="pretrain", config={})
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_create_refuses_folder_of_a_run(run):
    with pytest.raises(UsageError, match="--resume"):
        Run.create(run.folder, kind="pretrain", config={})


def test_open_names_folder_without_run(tmp_path):
    with pytest.raises(UsageError, match="not a run"):
        Run.open(tmp_path)


def test_open_names_damaged_record(run):
    (run.folder / "run.json").write_text('{"id": "x", ')
    with pytest.raises(DataError, match="damaged"):
        Run.open(run.folder)


def test_metrics_are_complete_lines_in_order(run):
    for step in (10, 20):
        run.log(step, {"train/loss": 1 / step})
    assert [(line["step"], line["train/loss"]) for line in run.metrics()] == [(10, 0.1), (20, 0.05)]


def test_metrics_ignore_unfinished_line(run):
    run.log(10, {"train/loss": 0.5})
    with run.paths.metrics.open("a") as file:
        file.write('{"step": 20, "train/lo')
    assert [line["step"] for line in run.metrics()] == [10]


def test_resume_drops_results_after_checkpoint(run):
    for step in (10, 20, 30):
        run.log(step, {"train/loss": 1.0})
        run.picture("case-01/views", step, np.zeros((4, 4, 3), np.uint8))
    run.finish("killed")
    again = Run.resume(run.folder, at_step=20)
    again.log(30, {"train/loss": 2.0})
    assert [(line["step"], line["train/loss"]) for line in again.metrics()] == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert [picture.step for picture in again.pictures()] == [10, 20]
    assert again.status == "running"
    assert again.record.resumes == [20]


@pytest.mark.parametrize(
    ("raised", "status"), [(None, "finished"), (ValueError("x"), "failed"), (KeyboardInterrupt(), "killed")]
)
def test_recording_sets_status_at_end(run, raised, status):
    def body() -> None:
        with run.recording():
            if raised:
                raise raised

    if raised:
        with pytest.raises(type(raised)):
            body()
    else:
        body()
    assert Run.open(run.folder).status == status


def test_recording_ends_as_killed_on_sigterm(run):
    def body() -> None:
        with run.recording():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        body()
    assert Run.open(run.folder).status == "killed"


def test_update_adds_metadata(run):
    run.update(mlflow_run_id="abc")
    assert Run.open(run.folder).metadata == {"task": "masked-volume", "mlflow_run_id": "abc"}


def test_picture_key_cannot_leave_folder(run):
    with pytest.raises(ValueError, match="picture key"):
        run.picture("../../etc/x", 1, np.zeros((4, 4, 3), np.uint8))


def test_record_names_neither_user_nor_machine(run, monkeypatch):
    content = (run.folder / "run.json").read_text()
    assert os.uname().nodename not in json.loads(content).values()
    assert f'"{os.uname().nodename}"' not in content
    assert os.path.expanduser("~") not in content


def test_update_of_dead_run_sends_no_heartbeat(run):
    before = run.record.heartbeat
    other = Run.open(run.folder)
    run.finish("killed")
    ended = Run.open(run.folder).record
    other.update(review="rejected")
    found = Run.open(run.folder)
    assert (found.status, found.record.heartbeat) == ("killed", ended.heartbeat)
    assert found.record.heartbeat >= before
    assert found.metadata["review"] == "rejected"


def test_claim_keeps_second_process_out(run):
    code = "import sys, pathlib; from medssl.runs.run import Run; Run.resume(pathlib.Path(sys.argv[1]), at_step=0)"
    second = subprocess.run([sys.executable, "-c", code, str(run.folder)], capture_output=True, text=True, check=False)
    assert "is being written by another process" in second.stderr
    run.finish("killed")
    assert subprocess.run([sys.executable, "-c", code, str(run.folder)], check=False).returncode == 0


def test_metrics_tail_reads_each_line_once(run):
    tail = MetricsTail(run.paths.metrics)
    assert tail.read() == []
    run.log(1, {"a": 1.0})
    with run.paths.metrics.open("a") as file:
        file.write('{"step": 2, ')
    assert [line["step"] for line in tail.read()] == [1]
    with run.paths.metrics.open("a") as file:
        file.write('"time": 3.0, "a": 2.0}\n')
    assert [line["step"] for line in tail.read()] == [2]
    assert tail.read() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, on which every write finds the disk full")
def test_log_explains_full_disk(run):
    run.paths.metrics.symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"metrics\.jsonl .* disk is full .* Free some space .* --resume"):
        run.log(1, {"train/loss": 1.0})


def test_describe_error_without_message_and_home():
    with pytest.raises(UsageError) as caught:
        Run.open(Path("/home/DOE_JOHN/scan"))
    assert re.fullmatch(r"UsageError in medssl/runs/run_record\.py:\d+", describe(caught.value))
