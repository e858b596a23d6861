"""kill -9 at random moments of an ingest, each continued: manifest and store of an uninterrupted run, byte for byte.

A moment is a share of the processor time that a whole run takes, so that it does not depend on what else the machine
does. MEDSSL_KILLS=20 kills more often than CI does; the shares come from a fixed seed.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import nibabel
import numpy as np
import pytest
from cohort_bytes import cohort_bytes
from written_dicom import Series, random_voxels

from medssl.cohort.manifest import read_manifest

COUNT = int(os.environ.get("MEDSSL_KILLS", "4"))
RUN = """
import sys
from pathlib import Path
from medssl.archive.limits import Limits
from medssl.ingestion import IngestSettings, ingest

if __name__ == "__main__":
    source, cohort, key, workers = sys.argv[1:]
    settings = IngestSettings(
        workers=int(workers), min_slices=3, limits=Limits(field_of_view_mm=5.0), key_file=Path(key), dataset="archive"
    )
    print("go", flush=True)
    sys.stdin.readline()
    ingest([Path(source)], Path(cohort), settings=settings)
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """DICOM and NIfTI, labels, copies, a damaged file: something for every step to do."""
    root = tmp_path / "a"
    for patient in range(8):
        uids = {"study_uid": f"1.2.{patient}", "series_uid": f"1.3.{patient}"}
        series = Series(random_voxels((14, 11, 9), seed=patient), patient=f"P{patient}", **uids)
        paths = series.write(root / f"{patient}")
    paths[5].write_bytes(paths[5].read_bytes()[:-50])
    (root / "images").mkdir()
    (root / "labels").mkdir()
    for case in range(4):
        voxels = np.random.default_rng(case % 3).integers(0, 500, (12, 10, 8)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1])), root / "images" / f"{case}.nii.gz")
    label = np.zeros((12, 10, 8), np.uint8)
    label[3:6, 2:7, 2:5] = 1
    nibabel.save(nibabel.Nifti1Image(label, np.diag([2.0, 2, 3, 1])), root / "labels" / "1.nii.gz")
    return root


class Runner:
    """Ingest in a process of its own, whole or killed when it has used so much processor time."""

    def __init__(self, folder: Path, source: Path, key_file: Path) -> None:
        self.folder, self.source, self.key_file = folder, source, key_file
        (folder / "run.py").write_text(RUN)

    def run(self, cohort: Path, *, workers: int, seconds: float = float("inf")) -> float:
        """Processor seconds that the run has used when it ended or was killed."""
        words = [self.folder / "run.py", self.source, cohort, self.key_file, workers]
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        clock = (~process.pid << 3) | 2  # CPU clock of another process: clock_getcpuclockid(3)
        with process:
            assert process.stdout.readline() == b"go\n"
            started_s = time.clock_gettime(clock)
            used_s = 0.0
            process.stdin.write(b"\n")
            process.stdin.flush()
            while process.poll() is None:
                used_s = time.clock_gettime(clock) - started_s
                if used_s >= seconds:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                time.sleep(0.0005)
        self.last = process.pid
        return used_s

    def wait_for_orphans(self) -> None:
        """Until the workers of a killed run have noticed that nobody waits for them."""
        for _ in range(600):
            try:
                os.killpg(self.last, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
        raise AssertionError("a worker of a killed ingest lives on")


def stage(cohort: Path) -> str:
    """How far a killed run has come."""
    index = cohort / "private" / "index.sqlite"
    if (cohort / "cohort.json").exists():
        return "done"
    if not index.exists():
        return "opening"
    with closing(sqlite3.connect(index)) as db:
        try:
            (scans,) = db.execute("SELECT COUNT(*) FROM scans").fetchone()
            (stored,) = db.execute("SELECT COUNT(*) FROM scans WHERE outcome IS NOT NULL").fetchone()
        except sqlite3.OperationalError:
            return "opening"
    return "reading headers" if not scans else "planning or storing the first" if not stored else "storing"


def test_dropped_scan_leaves_store_after_killed_ingest(tmp_path, archive, run_ingest, monkeypatch):
    """Between the plan without it and its removal, which a kill at random hits too seldom."""
    run_ingest(archive)
    assert run_ingest(archive, min_slices=9, out=tmp_path / "whole").n_scans == 10

    def killed(cohort: Path, scan_id: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("medssl.ingestion.archive_to_cohort.remove_volume", killed)
        with pytest.raises(KeyboardInterrupt):
            run_ingest(archive, min_slices=9)
    run_ingest(archive, min_slices=9)
    assert cohort_bytes(tmp_path / "cohort") == cohort_bytes(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(3600 if COUNT > 4 else 300)
def test_killed_ingest_continues_to_same_cohort(tmp_path, archive, key_file, run_ingest: Callable):
    runner = Runner(tmp_path, archive, key_file)
    whole_s = {workers: runner.run(tmp_path / f"whole-{workers}", workers=workers) for workers in (0, 2)}
    expected = cohort_bytes(tmp_path / "whole-0")
    assert cohort_bytes(tmp_path / "whole-2") == expected
    assert len(expected) > 10
    rows = set(read_manifest(tmp_path / "whole-0" / "manifest.parquet"))
    draw = random.Random(20240611)
    stages = []
    for number in range(COUNT):
        cohort, workers = tmp_path / f"killed-{number}", (0, 2)[number % 2]
        runner.run(cohort, workers=workers, seconds=draw.random() * whole_s[workers])
        stages.append(stage(cohort))
        run_ingest(archive, out=cohort, dataset="archive")
        runner.wait_for_orphans()
        different = set(read_manifest(cohort / "manifest.parquet")) ^ rows  # bytes tell nobody what went wrong
        assert not different, (number, stages[-1], different)
        assert cohort_bytes(cohort) == expected, (number, stages[-1])
    assert "storing" in stages or "reading headers" in stages, stages
    print(f"{COUNT} kills:", {found: stages.count(found) for found in stages})
