"""A run that an older medssl wrote is opened, read and continued; one of a newer says who wrote it."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from medssl.config import PretrainConfig, load_config
from medssl.encoders.weights import encoder_record, load_encoder
from medssl.errors import CheckpointError, DataError
from medssl.runs.run import Run
from medssl.training.checkpoint import read_checkpoint
from medssl.training.pretrain import pretrain
from medssl_cli.main import app

STEPS = 4


def settings(cohort: Path, *, steps: int) -> PretrainConfig:
    flags = {"cohort": str(cohort), "task.name": "masked-volume", "patch": [16, 16, 16], "encoder.preset": "tiny"}
    loop = {"loop.steps": steps, "loop.batch_size": 2, "loop.workers": 0, "loop.devices": 1}
    return load_config(PretrainConfig, flags=flags | loop | {"optim.warmup_fraction": 0.25, "task.mask_ratio": 0.5})


def into_format_1(folder: Path) -> None:
    """Rewrite a run as medssl wrote it before its formats had a version, or with version 1."""
    record = json.loads((folder / "run.json").read_text())
    record["facts"] = record.pop("metadata")
    del record["format"]
    (folder / "run.json").write_text(json.dumps(record))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["optim"]["warmup_share"] = config["optim"].pop("warmup_fraction")
    config["optim"]["final_lr_share"] = config["optim"].pop("min_lr_ratio")
    config["task"]["ratio"] = config["task"].pop("mask_ratio")
    config["probe"]["labels"] = config["probe"].pop("num_labelled")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    encoder = json.loads((folder / "encoder.json").read_text())
    encoder |= {"format": "medssl-encoder-1", "facts": encoder.pop("metadata")}
    del encoder["medssl"]
    (folder / "encoder.json").write_text(json.dumps(encoder))
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        group["lr_share"] = group.pop("lr_scale")
    state |= {"format": 1, "optimiser": state.pop("optimizer")}
    state["watch"] = {"monitor": state["watch"], "candidates": state.pop("candidates")}
    del state["medssl"]
    torch.save(state, folder / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def old_run(small_archive, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "run"
    pretrain(settings(small_archive.cohort, steps=STEPS), folder)
    into_format_1(folder)
    return folder


def test_run_of_format_1_is_read(old_run):
    run = Run.open(old_run)
    assert run.metadata["task"] == "masked-volume"
    assert "facts" not in run.record.model_dump()
    assert run.config["optim"]["warmup_fraction"] == 0.25
    assert run.config["task"] == {"name": "masked-volume", "mask_ratio": 0.5}
    assert encoder_record(old_run).metadata["steps"] == STEPS
    load_encoder(old_run)


def test_run_of_format_1_resumes_to_the_same_bits(old_run, small_archive, tmp_path):
    """Through the command line, which reads the run's own config.yaml."""
    moved = old_run.parent / "resumed"
    moved.mkdir()
    for path in old_run.rglob("*"):
        target = moved / path.relative_to(old_run)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    words = ["pretrain", "--resume", "--out", str(moved), "--steps", str(2 * STEPS), "--set", "tracking.enabled=false"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    resumed = Run.open(moved)
    assert resumed.record.resumes == [STEPS]
    assert {"loop.steps"} <= resumed.record.changes[0]["before"].keys() <= {"loop.steps", "tracking.enabled"}

    whole = tmp_path / "whole"
    pretrain(settings(small_archive.cohort, steps=STEPS), whole)
    pretrain(settings(small_archive.cohort, steps=2 * STEPS), whole, resume=True)
    ours, theirs = (read_checkpoint(Run.open(folder).paths.checkpoint) for folder in (moved, whole))
    for name, tensor in theirs["module"].items():
        assert torch.equal(tensor, ours["module"][name]), name


def test_newer_run_names_its_writer(old_run, tmp_path):
    record = json.loads((old_run / "run.json").read_text()) | {"format": 9, "versions": {"medssl": "7.1"}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"format 9, written by medssl 7\.1; .* reads 1 to 2\. Open the run with"):
        Run.open(tmp_path)


def test_newer_checkpoint_names_its_writer(tmp_path):
    torch.save({"format": 9, "medssl": "7.1", "step": 3}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"format 9, written by medssl 7\.1; .* reads 1 to 2\. Continue with"):
        read_checkpoint(tmp_path / "last.ckpt")
