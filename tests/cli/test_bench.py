"""`medssl bench`: the parts of a step, on a small cohort."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import medssl

from medssl.archive.limits import Limits
from medssl.ingestion.archive_to_cohort import ingest
from medssl.ingestion.settings import IngestSettings
from medssl.loading.pool import WorkerPool
from medssl.training.timing import Stopwatch
from medssl.training.trial import _advice


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "scans").mkdir()
    for i in range(3):
        voxels = np.random.default_rng(i).integers(1, 900, (20, 22, 24)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.5, 1.0])), folder / "scans" / f"scan-{i}.nii.gz")
    settings = IngestSettings(
        workers=0,
        min_slices=3,
        limits=Limits(field_of_view_mm=5.0),
        key_file=folder / "key",
        modality="MR",
        fractions=(1.0, 0.0, 0.0),
    )
    ingest([folder / "scans"], folder / "cohort", settings=settings)
    return folder / "cohort"


def test_bench_without_task_times_data_path(cohort):
    facts = json.loads(
        medssl("bench", "--cohort", str(cohort), "--steps", "2", "--batch-size", "2", "--workers", "0", "--json")
    )
    assert set(facts["parts_ms"]) == {"wait", "copy", "views"}
    assert set(facts["in_workers_ms"]) == {"read", "decode"}
    assert facts["step_ms"] == pytest.approx(sum(facts["parts_ms"].values()))
    assert facts["samples_per_s"] == pytest.approx(2000 / facts["step_ms"])


def test_bench_with_task_times_every_part(cohort):
    text = medssl(
        "bench",
        "--cohort",
        str(cohort),
        "--task",
        "masked-volume",
        "--steps",
        "1",
        "--batch-size",
        "2",
        "--workers",
        "0",
    )
    for part in ("wait", "copy", "views", "forward", "backward", "optimizer", "samples per second", "read", "decode"):
        assert part in text


def test_stopwatch_averages_waiting():
    watch = Stopwatch(torch.device("cpu"))
    watch.seconds = {"wait": [9.0, 9.0, 0.4, 0.0, 0.0, 0.0, 0.4, 0.0, 0.0, 0.0], "views": [1.0, 1.0, *[0.002] * 7, 5.0]}
    assert watch.parts_ms(2) == pytest.approx({"wait": 100.0, "views": 2.0})


def test_bench_excludes_prefetched_batches(cohort):
    words = ["--cohort", str(cohort), "--steps", "3", "--batch-size", "2", "--workers", "2", "--json"]
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            WorkerPool,
            "result",
            lambda pool, step, result=WorkerPool.result: (taken.append(step), result(pool, step))[1],
        )
        medssl("bench", *words)
    assert len(taken) >= 2 * 2 + 4  # all that were under way at the start, then two rounds


def test_advice_matches_timings():
    parts = {"wait": 50.0, "copy": 1.0, "views": 1.0, "forward": 40.0}
    assert "loop.workers=2" in _advice(parts, {"read": 1.0, "decode": 9.0}, 0.5, 0)[0]
    assert "faster disk" in _advice(parts, {"read": 90.0, "decode": 10.0}, 0.5, 2)[0]
    assert "share the cores" in _advice(parts, {"read": 9.0, "decode": 1.0}, 0.5, 2)[0]
    assert "at least 3 workers" in _advice(parts, {"read": 20.0, "decode": 80.0}, 0.5, 1)[0]
    assert "keeps up" in _advice({**parts, "wait": 0.1}, {"read": 1.0, "decode": 9.0}, 0.001, 4)[0]
    assert "augmentation" in _advice({**parts, "wait": 0.1, "views": 60.0}, {"read": 1.0, "decode": 9.0}, 0.001, 4)[0]
