"""Which run may be continued with which settings, and what is written down about those that changed."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from medssl.config import PretrainConfig
from medssl.errors import CheckpointError, UsageError
from medssl.progress import Silent
from medssl.runs.run import Run
from medssl.training.checkpoint import save_checkpoint
from medssl.training.opening import continue_run
from medssl.training.pretrain import pretrain

FACTS = {"task": "masked-volume", "cohort_digest": "abc", "scans": 3}


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def settings(**loop: object) -> dict[str, object]:
    given = {"cohort": "/data/cohort", "task": {"name": "masked-volume"}, "loop": {"steps": 40, **loop}}
    return PretrainConfig.model_validate(given).model_dump(mode="json")


def stopped(folder: Path, *, at: int | None = 30, weights: bool = False, status: str = "killed") -> Run:
    """A run of 40 steps that ended with a checkpoint of step `at`, or without one."""
    run = Run.create(folder, kind="pretrain", config=settings(), metadata=FACTS)
    for step in (0, 10, 20, 30, 40):
        run.log(step, {"train/loss": 1.0})
    if at is not None:
        module = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        save_checkpoint(run.paths.checkpoint, module=module, optimizer=optimizer, step=at)
    if weights:
        run.paths.encoder_weights.write_bytes(b"weights")
    run.finish(status)
    return run


def go_on(run: Run, wanted: dict[str, object], **facts: object) -> tuple[Run, Heard]:
    heard = Heard()
    return continue_run(run.folder, kind="pretrain", settings=wanted, metadata=FACTS | facts, progress=heard), heard


def test_resume_records_changed_settings(tmp_path):
    wanted = settings(steps=4000)
    wanted["optim"]["lr"], wanted["cohort"] = 0.5, "/elsewhere/cohort"
    run, heard = go_on(stopped(tmp_path / "run"), wanted, scans=4)
    found = Run.open(run.folder)
    assert found.config == wanted
    assert found.metadata["scans"] == 4
    before = {"cohort": "a path", "optim.lr": 0.001, "loop.steps": 40}
    assert found.record.changes == [{"step": 30, "before": before}]
    assert "loop.steps is 4000 from here on, 40 before" in heard.lines
    assert "optim.lr is 0.5 from here on, 0.001 before" in found.paths.log.read_text()
    assert "elsewhere" not in found.paths.log.read_text()


def test_resume_without_change_records_nothing(tmp_path):
    run, heard = go_on(stopped(tmp_path / "run"), settings())
    assert (run.record.changes, run.record.resumes, heard.lines) == ([], [30], [])


def test_resume_refuses_fewer_steps_than_trained(tmp_path):
    run = stopped(tmp_path / "run")
    with pytest.raises(UsageError, match=r"trained for 30 steps, and loop\.steps is 6\. .* --steps 40"):
        go_on(run, settings(steps=6))
    assert Run.open(run.folder).status == "killed"
    assert run.config["loop"]["steps"] == 40


@pytest.mark.parametrize(
    ("loop", "facts", "named"),
    [
        ({"seed": 9}, {}, r"loop\.seed"),
        ({"batch_size": 8}, {}, r"loop\.batch_size"),
        ({}, {"cohort_digest": "def"}, "cohort digest"),
        ({}, {"task": "simclr"}, "task"),
        ({"seed": 1}, {"cohort_digest": "def"}, r"loop\.seed and cohort digest"),
    ],
)
def test_resume_refuses_another_training(tmp_path, loop, facts, named):
    run = stopped(tmp_path / "run")
    with pytest.raises(UsageError, match=f"begun with another {named}, and"):
        go_on(run, settings(**loop), **facts)
    assert [line["step"] for line in run.metrics()] == [0, 10, 20, 30, 40]


def test_resume_names_command_of_another_kind(tmp_path):
    run = stopped(tmp_path / "run")
    with pytest.raises(UsageError, match="medssl pretrain --resume"):
        continue_run(run.folder, kind="finetune", settings=settings(), metadata=FACTS, progress=Silent())


def test_resume_without_checkpoint_starts_over(tmp_path):
    run, heard = go_on(stopped(tmp_path / "run", at=None), settings(seed=7))
    assert heard.lines == ["there is no checkpoint yet: it starts again from step 0"]
    assert run.metrics() == []
    assert "starts again from step 0" in run.paths.log.read_text()


@pytest.mark.parametrize(("weights", "status"), [(True, "running"), (False, "finished"), (True, "killed")])
def test_resume_without_checkpoint_keeps_finished_run(tmp_path, weights, status):
    run = stopped(tmp_path / "run", at=None, weights=weights, status=status)
    with pytest.raises(UsageError, match=r"last\.ckpt\) is gone: .* would erase"):
        go_on(run, settings())
    assert len(run.metrics()) == 5


def test_resume_with_damaged_checkpoint_says_what_is_lost(tmp_path):
    run = stopped(tmp_path / "run")
    (run.paths.checkpoint).write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="loses its metrics and pictures too"):
        go_on(run, settings())


def test_resume_gives_a_copy_its_own_id(tmp_path):
    original = stopped(tmp_path / "run")
    shutil.copytree(original.folder, tmp_path / "copy")
    copy, _ = go_on(Run.open(tmp_path / "copy"), settings())
    assert copy.id != original.id
    assert copy.record.resumed_from == original.id
    copy.finish("killed")
    assert Run.resume(tmp_path / "copy", at_step=30).id == copy.id
    original.folder.rename(tmp_path / "renamed")
    renamed, _ = go_on(Run.open(tmp_path / "renamed"), settings())
    assert (renamed.id, renamed.record.resumed_from) == (original.id, None)


def test_resume_with_more_steps_trains_to_new_end(small_archive, tmp_path):
    config = PretrainConfig.model_validate(
        {
            "cohort": small_archive.cohort,
            "task": "masked-volume",
            "encoder": {"name": "dynunet", "preset": "tiny"},
            "patch": [16, 16, 16],
            "loop": {"steps": 2, "batch_size": 1, "log_every": 1, "devices": 1, "workers": 0, "diagnose_every": 9},
        }
    )
    pretrain(config, tmp_path / "run")
    longer = config.model_copy(update={"loop": config.loop.model_copy(update={"steps": 4})})
    pretrain(longer, tmp_path / "run", resume=True)
    again = PretrainConfig.model_validate(Run.open(tmp_path / "run").config)
    assert again == longer
    with pytest.raises(UsageError, match=r"loop\.steps is 2"):
        pretrain(config, tmp_path / "run", resume=True)
