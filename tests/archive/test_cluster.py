"""The same ingest on a Dask cluster of processes: the same manifest, also when a worker or a decoder dies."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cohort_bytes import cohort_bytes
from dangerous import GIGABYTE, behave, fail
from typer.testing import CliRunner
from waiting import wait_for
from written_dicom import Series, random_voxels

from medssl.archive.workers import dask as cluster_module
from medssl.cohort.cohort import Cohort
from medssl.cohort.reasons import Reason
from medssl.errors import ConfigError, DataError
from medssl_cli.archive_options import ingest_settings
from medssl_cli.main import app

pytest.importorskip("distributed", reason="needs Dask: pip install 'medssl[cluster]'")
# Dask's processes talk over sockets of this machine; its client warns when one of them is killed.
pytestmark = [pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.filterwarnings("ignore")]

# What a test sends to a worker is imported there.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}


class Cluster:
    """A scheduler and two workers under nannies, as `dask scheduler` and `dask worker` start them."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.processes = [self._start("scheduler", "--port", "0", "--no-dashboard")]
        self.workers = [self.start_worker(folder / name) for name in ("one", "two")]
        self.processes += self.workers
        wait_for(self.file.exists)
        self.address = json.loads(self.file.read_text())["address"]

    def start_worker(self, folder: Path) -> subprocess.Popen[bytes]:
        return self._start("worker", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder))

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1", "--scheduler-file", str(self.file)]
        return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("dask"))
    yield running
    for process in running.processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.fixture
def archive(tmp_path) -> Path:
    """Six patients, a file that is cut short and one that is no scan."""
    for patient in range(6):
        uids = {"study_uid": f"1.2.{patient}", "series_uid": f"1.3.{patient}"}
        paths = Series(random_voxels(seed=patient), patient=f"P{patient}", **uids).write(tmp_path / "a" / f"{patient}")
    paths[4].write_bytes(paths[4].read_bytes()[:-100])
    (tmp_path / "a" / "README.txt").write_text("about these scans")
    return tmp_path / "a"


@pytest.mark.slow
def test_cluster_manifest_equals_that_of_one_machine(tmp_path, archive, run_ingest, cluster):
    """Also when one of the two workers is killed on the way."""
    alone = run_ingest(archive, out=tmp_path / "alone")
    together = run_ingest(archive, out=tmp_path / "together", workers=None, scheduler=cluster.address)
    assert cohort_bytes(tmp_path / "together") == cohort_bytes(tmp_path / "alone")
    assert (together.reasons, together.n_loaded) == (alone.reasons, alone.n_loaded)
    assert set(together.reasons) == {"TRUNCATED", "MISSING_SLICES", "NOT_DICOM"}

    class Murder:
        """Kills a worker, its nanny and all it has started when the second scan is in the store."""

        def step(self, stage: str, done: int, total: int | None, note: str) -> None:
            if stage == "storing scans" and done == 2:
                os.killpg(cluster.workers[0].pid, signal.SIGKILL)

    run_ingest(archive, out=tmp_path / "killed", workers=None, scheduler=cluster.address, progress=Murder())
    assert cluster.workers[0].wait(10) == -signal.SIGKILL
    assert cohort_bytes(tmp_path / "killed") == cohort_bytes(tmp_path / "alone")
    assert len(Cohort.open(tmp_path / "killed").accepted()) == 6


def test_deadly_task_spares_the_dask_worker(tmp_path, cluster):
    """A task that kills its process or takes too long costs itself and no Dask worker."""
    with cluster_module.ClusterWorkers(cluster.address, worker_bytes=4 * GIGABYTE, must_see=[tmp_path]) as workers:
        done = {one.task: one for one in workers.run(behave, [0, 1, 2, 3, 4, 6], timeout_s=6.0)}
        with pytest.raises(ZeroDivisionError) as caught:
            list(workers.run(fail, [7], timeout_s=6.0))
        assert list(workers.run(fail, [], timeout_s=6.0)) == []
    assert {task: one.result for task, one in done.items() if one.failure is None} == {0: 0, 1: 1, 3: 9, 6: 36}
    assert (done[2].failure.reason, done[2].failure.detail) == (Reason.DECODER_CRASH, "the worker died (exit code -6)")
    assert done[4].failure.reason is Reason.TIMEOUT
    assert "in fail" in "".join(caught.value.__notes__)


def test_worker_without_the_archive_stops_the_ingest(tmp_path, cluster):
    needs = {"worker_bytes": 4 * GIGABYTE, "must_see": [tmp_path / "mounted elsewhere"]}
    with (
        pytest.raises(DataError, match=r"does not see .*mounted elsewhere\. Mount"),
        cluster_module.ClusterWorkers(cluster.address, **needs) as workers,
    ):
        list(workers.run(behave, [1], timeout_s=5.0))


def test_silent_scheduler_is_a_clear_error(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(cluster_module, "_CONNECT_TIMEOUT_S", 1)
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "key"))
    words = ["ingest", str(archive), "--out", str(tmp_path / "c"), "--scheduler", "tcp://127.0.0.1:9"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "c").exists()
    words[-1] = "node1"
    assert "Write it like tcp://node1:8786" in CliRunner().invoke(app, words).output


def test_workers_and_scheduler_exclude_each_other():
    with pytest.raises(ConfigError, match="with a scheduler its own workers do the work"):
        ingest_settings({"workers": 2, "scheduler": "tcp://127.0.0.1:9"})
