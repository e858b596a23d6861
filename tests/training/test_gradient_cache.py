"""The gradient cache in the loop: chunks train as the whole batch does, and tasks that cannot be split are refused."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

import pytest
import torch
from joint_world import CASES, gradient, in_double, make, region, store_phantoms
from lightning_fabric import Fabric

from medssl.config import LoopConfig, PretrainConfig
from medssl.errors import ConfigError
from medssl.runs.run import Run
from medssl.training.pretrain import pretrain
from medssl.training.step import backward, set_up_chunks
from medssl.training.trial import dry_run

# Every task that splits into embed and compare. A batch norm in the heads would see another batch in every chunk.
SPLIT = [case for case in CASES if case not in ("jepa", "simclr with batch norm")]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return store_phantoms(tmp_path_factory.mktemp("store"), 3)


def without_batch_norm(case: str):
    """The task of a case, in double precision, its heads with layer norm."""
    return make(case, norm="layer").double()


def gradient_in_chunks(case: str, views: dict[str, torch.Tensor], chunk: int) -> tuple[torch.Tensor, float]:
    fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
    task = without_batch_norm(case)
    model = fabric.setup(task)
    set_up_chunks(task, model, chunk=chunk)
    step = backward(model, views, fabric=fabric, chunk=chunk)
    return gradient(task), float(step.loss.detach())


@pytest.mark.parametrize("case", SPLIT)
def test_gradient_cache_equals_gradient_of_whole_batch(case, scans):
    task = without_batch_norm(case)
    views = in_double(task.views(region(task, scans)))
    whole, loss = gradient_in_chunks(case, views, 0)
    chunks, again = gradient_in_chunks(case, views, 2)  # of 3 samples: the last chunk is short
    # Fabric hands outputs over in float32; tests/tasks/test_joint_embedding.py holds the same in float64 to 1e-9
    assert again == pytest.approx(loss, rel=1e-6)
    assert whole.norm() > 0
    torch.testing.assert_close(chunks, whole, rtol=1e-4, atol=1e-6 * float(whole.abs().max()))


def config_of(cohort: Path, task: str, *, chunk: int, **options) -> PretrainConfig:
    return PretrainConfig(
        cohort=cohort,
        task={"name": task, **options},
        encoder={"preset": "tiny"},
        patch=(16, 16, 16),
        gradient_cache=chunk,
        loop=LoopConfig(steps=2, batch_size=5, log_every=1, workers=0, devices=1, precision="32-true"),
    )


def progress_of(run: Path) -> list[tuple[float, float]]:
    lines = [line for line in Run.open(run).metrics() if "train/loss" in line]
    return [(line["train/loss"], line["train/grad_norm"]) for line in lines]


def test_gradient_cache_pretraining_equals_whole_batch(small_archive, tmp_path):
    config = config_of(small_archive.cohort, "vicreg", chunk=2, hidden=16, features=8)
    chunks = progress_of(pretrain(config, tmp_path / "chunks"))
    whole = progress_of(pretrain(config.model_copy(update={"gradient_cache": 0}), tmp_path / "whole"))
    assert chunks[0] == pytest.approx(whole[0], rel=1e-4)
    assert chunks[1] == pytest.approx(whole[1], rel=2e-2)  # what rounding makes of AdamW's division
    assert dry_run(config).views["a"][0] == 5


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("masked-volume", {}, "task masked-volume does not split into embed and compare.*gradient_cache=0"),
        ("byol", {"norm": "batch"}, "is a batch norm, which sees other statistics.*task.norm=layer"),
    ],
)
def test_gradient_cache_refuses_unsuited_task_before_run(task, options, said, small_archive, tmp_path):
    config = config_of(small_archive.cohort, task, chunk=2, **options)
    with pytest.raises(ConfigError, match=said):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=said):
        dry_run(config)


RANK = """
import sys, torch
sys.path[:0] = sys.argv[3:]
from joint_world import gradient, make
from lightning_fabric import Fabric
from medssl.training.step import backward, set_up_chunks
from medssl.training.fabric import leave_process_group
torch.set_num_threads(1)
views, case, chunk = torch.load(sys.argv[1])
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="64-true")
fabric.launch()
def main():
    half = len(views["a"]) // 2
    mine = {name: view[fabric.global_rank * half :][:half] for name, view in views.items()}
    task = make(case, norm="layer").double()
    model = fabric.setup(task)
    set_up_chunks(task, model, chunk=chunk)
    backward(model, mine, fabric=fabric, chunk=chunk)
    torch.save(gradient(task), f"{sys.argv[2]}.{fabric.global_rank}")
main()
leave_process_group()  # with the model gone: see there
"""


@pytest.mark.slow
def test_gradient_cache_on_two_ranks_equals_one_process(tmp_path):
    scans = store_phantoms(tmp_path / "store", 6)
    case = "moco without queue"
    task = without_batch_norm(case)
    views = in_double(task.views(region(task, scans)))
    torch.save((views, case, 2), tmp_path / "views.pt")
    (tmp_path / "rank.py").write_text(RANK)
    paths = [str(tmp_path / name) for name in ("rank.py", "views.pt", "gradient")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*launch, *paths, str(Path(__file__).parents[1] / "tasks")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, _ = gradient_in_chunks(case, views, 0)
    for rank in (0, 1):  # three samples a rank: a chunk of two and one of one
        got = torch.load(tmp_path / f"gradient.{rank}")
        torch.testing.assert_close(got, whole, rtol=1e-4, atol=1e-6 * float(whole.abs().max()))
