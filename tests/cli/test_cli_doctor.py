"""`medssl doctor`: failed checks come with a fix, and a check that raises does not stop the others."""

import json
import os
import sqlite3
import subprocess
import sys
from collections import namedtuple
from contextlib import closing

import nibabel
import numpy as np
import pytest
import torch
from command_line import medssl
from installed_plugins import task_source

from medssl.errors import UsageError
from medssl.runs.run import Run
from medssl.tracking.client import connect
from medssl.tracking.workspace import TrackingStore
from medssl_cli.checkup import contents, machine, tracking
from medssl_cli.checkup.result import Targets

# MLflow's own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

Usage = namedtuple("Usage", "total used free")


def doctor(*arguments: object, code: int = 0) -> str:
    return medssl("doctor", *arguments, code=code)


def test_doctor_runs_every_check(tmp_path):
    results = json.loads(doctor("--json", "--out", tmp_path / "runs"))
    assert {result["check"] for result in results} >= {
        "versions",
        "gpu",
        "codecs",
        "disk",
        "tracking",
        "plugins",
        "runs",
    }
    assert [result for result in results if result["status"] == "failed"] == []


def test_doctor_list_runs_no_check():
    assert "codecs: Whether compressed DICOM frames can be decoded" in doctor("--list")


def test_doctor_continues_after_raising_check(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "codecs", lambda targets: 1 / 0)
    output = doctor("--out", tmp_path, code=1)
    assert "✗ codecs: could not be checked (ZeroDivisionError: division by zero)" in output
    assert "✓ plugins" in output
    assert "need attention" in output


def test_versions_names_old_library_and_fix(monkeypatch):
    monkeypatch.setattr(machine, "version", lambda name: "1.0" if name == "monai" else "2026.9")
    monkeypatch.setattr(
        machine, "requires", lambda name: ["monai<1.7,>=1.6", "imagecodecs>=2026.1", "pytest>=99; extra == 'test'"]
    )
    (result,) = machine.versions(Targets(out=None))
    assert result.status == "failed"
    assert result.text == "monai 1.0 is installed; medssl needs <1.7,>=1.6"
    assert result.fix.endswith("-m pip install 'monai<1.7,>=1.6'")


def test_accelerators_reports_unusable_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "_driver_gpus", lambda: "NVIDIA H200, 570.1")
    monkeypatch.setattr(torch.version, "cuda", None)
    (result,) = machine.accelerators(Targets(out=None))
    assert (result.status, "built without CUDA, but there is a GPU (NVIDIA H200" in result.text) == ("failed", True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (result,) = machine.accelerators(Targets(out=None))
    assert "(CUDA 13.0) cannot use the GPU" in result.text


def test_disks_reports_full_disk_and_small_shared_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: Usage(total=2**26, used=0, free=2**29))
    disk, memory = machine.disks(Targets(out=tmp_path / "not" / "yet"))
    assert (disk.status, memory.status) == ("failed", "note")
    assert "--shm-size" in memory.fix


def test_file_system_uses_deepest_mount(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"disk / ext4 rw 0 0\nserver:/x {tmp_path}/a nfs4 rw 0 0\nserver:/y {tmp_path}/a\\040b cifs rw 0 0\n"
    )
    assert machine.file_system(tmp_path / "a" / "runs", mounts) == "nfs4"
    assert machine.file_system(tmp_path / "a b", mounts) == "cifs"
    assert machine.file_system(tmp_path / "ab", mounts) == "ext4"


def test_plugins_reports_failures_clashes_and_requirements(install):
    site = install("medssl-broken", {"other": "import does_not_exist\n"})
    install("medssl-p1", {"jigsaw-x": task_source("jigsaw-x")})
    install("medssl-p2", {"jigsaw-x": task_source("jigsaw-x")})
    metadata = site / "medssl_broken-0.1.dist-info" / "METADATA"
    metadata.write_text(f"{metadata.read_text()}Requires-Dist: medssl>=7,<8\n")
    texts = [result.text for result in contents.plugins(Targets(out=None)) if result.status == "failed"]
    assert sum("'jigsaw-x' is provided by" in text for text in texts) == 2
    assert any("medssl-broken 0.1 failed to load (ModuleNotFoundError" in text for text in texts)
    assert any(text.startswith("medssl-broken needs medssl<8,>=7; 0.") for text in texts)


def test_doctor_fix_closes_dead_run(tmp_path, monkeypatch):
    Run.create(tmp_path / "a", kind="pretrain", config={}, metadata={})
    monkeypatch.setattr("medssl.runs.run.SILENT_AFTER_S", -1)
    assert "has been silent for" in doctor("--out", tmp_path)
    assert "closed as killed" in doctor("--out", tmp_path, "--fix")
    assert Run.open(tmp_path / "a").status == "killed"
    assert "1 runs in" in doctor("--out", tmp_path)


HOLDS = """
import sys
from datetime import timedelta
from pathlib import Path
from medssl.runs.run_record import now, write_record
from medssl.errors import UsageError
from medssl.runs.run import Run
run = Run.create(Path(sys.argv[1]), kind="finetune", config={})
write_record(run.folder, run.record.model_copy(update={"heartbeat": now() - timedelta(hours=1)}))
print("written", flush=True)
sys.stdin.read()
"""


def test_doctor_fix_spares_run_in_progress(tmp_path):
    folder = tmp_path / "slow"
    writer = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout.readline() == "written\n"
        assert "none of them lost" in doctor("--out", tmp_path, "--fix")
        assert Run.open(folder).silent_for_s is None
        with pytest.raises(UsageError, match="being written by another process"):
            Run.close_silent(folder)
        assert Run.open(folder).status == "running"
        writer.stdin.close()
    assert "closed as killed" in doctor("--out", tmp_path, "--fix")


def test_cohort_check_reports_readable_private_folder(tmp_path):
    (tmp_path / "private").mkdir(mode=0o755)
    first, second = contents.cohort(Targets(out=tmp_path, cohort=tmp_path))
    assert first.fix == f"chmod 700 {tmp_path}/private"
    assert "no cohort" in second.text


def test_cohort_check_verifies_every_checksum(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "scans").mkdir()
    for seed in range(2):
        voxels = np.random.default_rng(seed).integers(0, 900, (28, 24, 20)).astype(np.int16)
        path = tmp_path / "scans" / f"scan-{seed}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), path)
        os.utime(path, (1e9, 1e9))  # ingest leaves alone what is still being written
    medssl("ingest", tmp_path / "scans", "--out", tmp_path / "cohort")
    assert "✓ cohort: 2 scans of 2 rows, every checksum correct" in doctor(
        "--out", tmp_path, "--cohort", tmp_path / "cohort"
    )
    stored = sorted((tmp_path / "cohort" / "store").rglob("*.b2nd"))[0]
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 0xFF
    stored.write_bytes(content)
    assert "✗ cohort: " in doctor("--out", tmp_path, "--cohort", tmp_path / "cohort", code=1)


def test_tracking_check_leaves_store_unchanged(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (result,) = tracking.tracking(Targets(out=tmp_path / "runs"))
    assert result.status == "ok", result.text
    assert "will be made by the first run" in result.text
    assert not (tmp_path / "runs").exists()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    connect(TrackingStore(uri, tmp_path.as_uri(), local=True))
    (result,) = tracking.tracking(Targets(out=tmp_path, tracking_uri=uri))
    assert (result.status, result.text) == ("ok", f"{uri}: one run written, read back and deleted")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'old'")
    (result,) = tracking.tracking(Targets(out=tmp_path, tracking_uri=uri))
    assert "schema of another MLflow (old" in result.text
    assert result.fix.endswith(f"mlflow db upgrade {uri}")
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    (result,) = tracking.tracking(Targets(out=tmp_path, tracking_uri=uri))
    assert "is not a tracking database" in result.text


def test_tracking_check_reports_unreachable_server(tmp_path):
    (result,) = tracking.tracking(Targets(out=tmp_path, tracking_uri="http://127.0.0.1:9"))
    assert result.status == "failed"
    assert "http://127.0.0.1:9 cannot be written and read" in result.text
