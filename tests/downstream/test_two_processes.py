"""Two processes train as one: started by torchrun, over gloo, through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def pretrain(cohort: Path, out: Path, *, ranks: int) -> list[dict[str, float]]:
    command = ["pretrain", "--cohort", str(cohort), "--task", "simclr", "--out", str(out), "--steps", "4"]
    for setting in (
        "patch=[16,16,16]",
        "loop.batch_size=4",
        "loop.log_every=1",
        "encoder.preset=tiny",
        "tracking.enabled=false",
    ):
        command += ["--set", setting]
    launch = [] if ranks == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    subprocess.run(
        [sys.executable, *launch, "-m", "medssl_cli.main", *command], check=True, capture_output=True, timeout=240
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "train/loss" in line]


@pytest.mark.slow
def test_two_ranks_train_as_one_process(small_archive, tmp_path):
    one = pretrain(small_archive.cohort, tmp_path / "one", ranks=1)
    two = pretrain(small_archive.cohort, tmp_path / "two", ranks=2)
    assert [line["step"] for line in two] == [1, 2, 3, 4]
    # the first gradient before any rounding has grown; later steps follow the same path
    assert two[0]["train/grad_norm"] == pytest.approx(one[0]["train/grad_norm"], rel=1e-5)
    for here, there in zip(one, two, strict=True):
        assert there["train/loss"] == pytest.approx(here["train/loss"], rel=2e-3)
        assert there["train/grad_norm"] == pytest.approx(here["train/grad_norm"], rel=2e-2)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["status"] == "finished"
