"""From a cohort to an encoder, to a segmentation model, to labels on a scan's own grid."""

import json
import shutil
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medssl.cohort.cohort import Cohort
from medssl.config import FinetuneConfig, LoopConfig, OptimConfig, PretrainConfig
from medssl.downstream.comparison import Comparison
from medssl.downstream.dice import read_evaluation
from medssl.downstream.evaluation import evaluate
from medssl.downstream.finetuning import build_network, finetune, record_evaluation
from medssl.downstream.labelled import labelled_scans, training_scans
from medssl.downstream.prediction import predict
from medssl.downstream.sweep import label_efficiency
from medssl.encoders.weights import load_encoder, load_network, read_description, save_encoder
from medssl.errors import CheckpointError, ConfigError, DataError, UsageError
from medssl.progress import Silent
from medssl.runs.run import Run
from medssl.training.pretrain import pretrain
from tests.downstream.conftest import SHAPE, SmallArchive, add_phantoms, oblique_affine

PATCH = (16, 16, 16)


def loop(steps: int, seed: int = 0) -> LoopConfig:
    return LoopConfig(steps=steps, batch_size=2, seed=seed, workers=0, devices=1, log_every=5, checkpoint_every=50)


def finetuning(archive: SmallArchive, **changes) -> FinetuneConfig:
    settings = {"cohort": archive.cohort, "init": "scratch", "num_labelled": 3, "patch": PATCH, "loop": loop(2)}
    return FinetuneConfig(**{**settings, "optim": OptimConfig(lr=1e-2), **changes})


@pytest.fixture(scope="module")
def encoder_run(small_archive, tmp_path_factory) -> Path:
    config = PretrainConfig(
        cohort=small_archive.cohort, task={"name": "masked-volume"}, patch=PATCH, loop=loop(6), splits=("train",)
    )
    return pretrain(config, tmp_path_factory.mktemp("runs") / "masked")


@pytest.fixture(scope="module")
def model_run(small_archive, encoder_run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "model"
    model = finetune(finetuning(small_archive, init=str(encoder_run), num_labelled=6, loop=loop(60)), out)
    assert model.folder == out
    assert model.dice is not None
    assert model.dice > 0.5, model.evaluation
    return out


def test_pretraining_leaves_encoder_decoder_and_metadata(encoder_run, small_archive):
    run = Run.open(encoder_run)
    assert run.status == "finished"
    assert run.metadata["scans"] == 8
    encoder, decoder = load_encoder(encoder_run)
    assert decoder is not None
    assert encoder.description.name == "dynunet"
    assert {"train/loss", "train/lr", "energy/positive", "diagnostics/dense_rank"} <= {
        key for line in run.metrics() for key in line
    }


def test_finetuning_reports_pretrained_weights(encoder_run, small_archive, tmp_path):
    frozen = finetuning(small_archive, init=str(encoder_run), encoder_lr_scale=0.0, loop=loop(2))
    finetune(frozen, tmp_path / "run")
    pretrained, _ = load_encoder(encoder_run)
    network, _ = load_network(tmp_path / "run")
    for name, tensor in pretrained.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[name], tensor), name
    reports = Run.open(tmp_path / "run").metadata["transfer"]
    assert [report["what"] for report in reports] == ["encoder", "decoder"]
    assert reports[0]["counts"]["matched"] == len(pretrained.state_dict())


def test_evaluation_sends_heartbeats(small_archive, tmp_path, monkeypatch):
    beats: list[str] = []
    monkeypatch.setattr(Run, "beat", lambda run: beats.append("beat"))
    monkeypatch.setattr("medssl.downstream.finetuning.train", lambda training, **how: beats.clear())
    evaluation = finetune(finetuning(small_archive), tmp_path / "run").evaluation
    assert evaluation is not None
    assert len(beats) > len(evaluation.cases)


def test_init_is_equal_where_nothing_is_transferred(encoder_run, small_archive):
    """From scratch and from a pretraining, the output layer has the same random weights."""
    scans = training_scans(Cohort.open(small_archive.cohort), num_labelled=3, seed=0)
    heads = []
    for init in ("scratch", str(encoder_run)):
        network, _ = build_network(finetuning(small_archive, init=init), scans=scans, patch=PATCH, classes=3)
        heads.append(network.decoder.state_dict()["output_block.conv.conv.weight"])
    assert torch.equal(heads[0], heads[1])


def test_larger_draw_of_labelled_scans_contains_smaller(small_archive):
    cohort = Cohort.open(small_archive.cohort)
    chosen = [{s.scan_id for s in training_scans(cohort, num_labelled=n, seed=1)} for n in (2, 5)]
    assert chosen[0] < chosen[1]
    other = {s.scan_id for s in training_scans(cohort, num_labelled=2, seed=2)}
    assert len(other) == 2


def test_prediction_lies_on_the_oblique_grid(model_run, small_archive, tmp_path):
    source = small_archive.scans / "images" / "case09.nii.gz"
    (result,) = predict(model_run, source, tmp_path)
    assert result.output is not None
    labels = nib.load(result.output)
    np.testing.assert_allclose(labels.affine, oblique_affine(), atol=1e-5)
    assert labels.shape == SHAPE
    guess = np.asarray(labels.dataobj)
    reference = np.asarray(nib.load(small_archive.scans / "labels" / "case09.nii.gz").dataobj)
    # flipped or shifted labels would fall to about chance
    for value in (1, 2):
        overlap = (
            2 * ((guess == value) & (reference == value)).sum() / ((guess == value).sum() + (reference == value).sum())
        )
        assert overlap > 0.5


def test_evaluate_scores_a_model_as_its_fine_tuning_did(model_run, small_archive):
    evaluation = evaluate(model_run)
    assert evaluation == read_evaluation(model_run)
    assert evaluate(str(model_run), str(small_archive.cohort)) == evaluation
    assert {case.scan_id for case in evaluate(model_run, split="train").cases}.isdisjoint(
        case.scan_id for case in evaluation.cases
    )
    with pytest.raises(DataError, match=r"The split 'val' of .* has no labelled scan"):
        evaluate(model_run, split="val")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("policy", {"other_spacing_mm": [2.0, 2.0, 2.0]}, "stored with other_spacing_mm"),
        (
            "label_names",
            {"0": "background", "1": "spleen", "2": "liver"},
            "class 1 is 'spleen' in .* and '1' in the model",
        ),
    ],
)
def test_evaluate_refuses_a_cohort_that_does_not_fit(model_run, small_archive, tmp_path, key, value, says):
    shutil.copytree(small_archive.cohort, tmp_path / "cohort")
    path = tmp_path / "cohort" / "cohort.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match=says):
        evaluate(model_run, tmp_path / "cohort")


def test_functions_take_settings_as_a_mapping(small_archive, tmp_path):
    """The way of a notebook: paths and plain values."""
    settings = {"cohort": str(small_archive.cohort), "patch": list(PATCH), "loop": {"steps": 1, "workers": 0}}
    model = finetune({**settings, "init": "scratch", "num_labelled": 2, "loop.batch_size": 2}, str(tmp_path / "run"))
    assert model.dice is not None
    assert Run.open(model.folder).config["loop"]["steps"] == 1
    comparison = label_efficiency(settings, str(tmp_path / "e"), inits={}, num_labelled=[2], seeds=1)
    assert [row.init for row in comparison.rows] == ["scratch"]
    source = small_archive.scans / "images" / "case09.nii.gz"
    (result,) = predict(str(model.folder), str(source), str(tmp_path / "out"))
    assert result.output == tmp_path / "out" / "case09_labels.nii.gz"
    with pytest.raises(ConfigError, match="did you mean 'num_labelled'"):
        finetune({**settings, "init": "scratch", "num_labeled": 2}, tmp_path / "run2")


def test_prediction_of_folder_skips_damaged_file(model_run, small_archive, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    good = (small_archive.scans / "images" / "case10.nii.gz").read_bytes()
    (folder / "good.nii.gz").write_bytes(good)
    (folder / "cut.nii.gz").write_bytes(good[: len(good) // 2])
    results = predict(model_run, folder, tmp_path / "out")
    assert {r.source.name: r.output is not None for r in results} == {"cut.nii.gz": False, "good.nii.gz": True}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good_labels.nii.gz"]
    with pytest.raises(UsageError, match="does not exist"):
        predict(model_run, tmp_path / "nowhere", tmp_path / "out2")


def test_label_efficiency_reuses_finished_runs(encoder_run, small_archive, tmp_path):
    """And compares on the same scans, with the network of the pretraining."""
    config = finetuning(small_archive, loop=loop(2), encoder={"name": "segresnet"})
    made: list[str] = []

    def progress(title: str) -> Silent:
        made.append(title)
        return Silent()

    compared = {"inits": {"masked": encoder_run}, "num_labelled": [2], "seeds": 2}
    comparison = label_efficiency(config, tmp_path / "e", **compared, progress=progress)
    assert [(row.num_labelled, row.init) for row in comparison.rows] == [(2, "scratch"), (2, "masked")]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "e" / "runs").glob("*/model.safetensors")}
    assert len(before) == 4
    networks = [Run.open(path.parent).metadata["encoder"] for path in before]
    assert networks == 4 * [read_description(encoder_run).model_dump(mode="json")]  # not the one that was asked for
    again = label_efficiency(config, tmp_path / "e", **compared, progress=progress)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert again == comparison == Comparison.read(tmp_path / "e")
    rows = json.loads((tmp_path / "e" / "label_efficiency.json").read_text())["scores"]
    assert len(rows) == 4 * 3
    assert (tmp_path / "e" / "label_efficiency.png").stat().st_size > 10_000
    other = config.model_copy(update={"augment": 0.5})
    with pytest.raises(ConfigError, match="other settings"):
        label_efficiency(other, tmp_path / "e", **compared, progress=progress)


def test_label_efficiency_refuses_changed_weights(encoder_run, small_archive, tmp_path):
    """Scores of an encoder that was pretrained again must not appear as those of the new one."""
    start, out = tmp_path / "masked", tmp_path / "e"
    shutil.copytree(encoder_run, start)
    compared = partial(
        label_efficiency,
        finetuning(small_archive, loop=loop(1)),
        out,
        inits={"masked": start},
        num_labelled=[2],
        seeds=1,
    )
    before = compared()
    encoder, decoder = load_encoder(start)
    with torch.no_grad():
        next(encoder.parameters()).mul_(1.5)
    save_encoder(start, encoder, decoder, metadata={})
    with pytest.raises(ConfigError, match=r"masked-n2-s0 started from other weights than .*masked holds now\. Choose"):
        compared()

    shutil.rmtree(out / "runs" / "masked-n2-s0")
    after = compared()
    assert after.rows[0] == before.rows[0]


def test_evaluation_leaves_out_class_without_reference(model_run, small_archive, tmp_path):
    """The mean is over the other classes, and no file contains NaN."""
    network, _ = load_network(model_run)
    config, run = finetuning(small_archive), Run.create(tmp_path / "run", kind="finetune", config={})
    scans, names = (
        labelled_scans(Cohort.open(small_archive.cohort), split="test"),
        {1: "box", 2: "bright box", 3: "tumour"},
    )
    evaluation = record_evaluation(
        network, scans, run=run, config=config, names=names, patch=PATCH, device=torch.device("cpu")
    )
    assert evaluation
    assert evaluation.dice == np.mean([evaluation.class_dice[1], evaluation.class_dice[2]])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads((run.folder / "evaluation.json").read_text(), parse_constant=refuse)
    assert content["classes"]["3"] == {"name": "tumour", "dice": None, "empty": 3, "false_alarms": 0}
    (logged,) = [json.loads(line, parse_constant=refuse) for line in run.paths.metrics.read_text().splitlines()]
    assert {key for key in logged if key.startswith("test/")} == {"test/dice", "test/dice_box", "test/dice_bright_box"}
    assert "class 'tumour' is in no test scan" in run.paths.log.read_text()


def test_run_without_evaluation_is_scored_again(encoder_run, small_archive, tmp_path):
    """Without training, as the refusal of an evaluation of another format promises."""
    config, out = finetuning(small_archive, loop=loop(2)), tmp_path / "e"
    compared = partial(label_efficiency, config, out, inits={"masked": encoder_run}, num_labelled=[2], seeds=1)
    before = compared()
    run = out / "runs" / "masked-n2-s0"
    (run / "evaluation.json").unlink()
    trained = (run / "metrics.jsonl").read_text()
    assert compared() == before
    again = (run / "metrics.jsonl").read_text()
    assert again.startswith(trained)
    assert again.removeprefix(trained).count("\n") == 1
    assert "train/loss" not in again.removeprefix(trained)


@pytest.mark.parametrize(
    ("spoil", "labels", "error", "says"),
    [
        (None, [2, 99], ConfigError, "99 labelled scans were asked for, but the split 'train' has 8"),
        ("test split", [2], DataError, "The split 'test' has no labelled scan, so nothing can be compared"),
        ("weights", [2], CheckpointError, "encoder.safetensors"),
    ],
)
def test_label_efficiency_reports_problems_before_training(
    encoder_run, small_archive, untested_cohort, tmp_path, spoil, labels, error, says
):
    start = shutil.copytree(encoder_run, tmp_path / "masked")
    config = finetuning(small_archive, loop=loop(1))
    if spoil == "test split":
        config = config.model_copy(update={"cohort": untested_cohort})
    if spoil == "weights":
        (start / "encoder.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(error, match=says):
        label_efficiency(
            config, tmp_path / "e", inits={"masked": start}, num_labelled=labels, seeds=1, progress=pytest.fail
        )
    assert not (tmp_path / "e").exists()


def test_finetuning_without_test_scans_says_so_first(small_archive, untested_cohort, tmp_path):
    heard: list[str] = []

    class Listening(Silent):
        def say(self, line: str) -> None:
            heard.append(line)

        def step(self, stage: str, done: int, total: int | None, note: str = "") -> None:
            if done == 0:
                heard.append("training starts")

    config = finetuning(small_archive, cohort=untested_cohort, num_labelled=2, loop=loop(1))
    assert finetune(config, tmp_path / "run", progress=Listening()).evaluation is None
    assert [line.split(":")[0] for line in heard] == ["The split 'test' has no labelled scan", "training starts"]


def test_label_efficiency_refuses_changed_cohort(encoder_run, small_archive, tmp_path):
    """Before anything is trained, and naming every run that does not fit."""
    cohort, out = tmp_path / "cohort", tmp_path / "e"
    shutil.copytree(small_archive.cohort, cohort)
    config = finetuning(small_archive, cohort=cohort, loop=loop(1))
    compared = partial(label_efficiency, config, out, inits={"masked": encoder_run}, num_labelled=[2], seeds=2)
    compared()
    add_phantoms(small_archive, cohort, folder=tmp_path / "more", numbers=[11])
    shutil.rmtree(out / "runs" / "scratch-n2-s0")
    with pytest.raises(
        ConfigError,
        match=r"masked-n2-s0 was made when .*cohort held other scans.* Nor do these fit: scratch-n2-s1, masked-n2-s1\.",
    ):
        compared()
    assert not (out / "runs" / "scratch-n2-s0").exists()


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"num_labelled": 50}, ConfigError, "the split 'train' has 8"),
        ({"init": "/nowhere"}, CheckpointError, "encoder.json"),
        ({"patch": (16, 16, 17)}, ConfigError, "W = 17"),
        ({"cohort": Path("/nowhere")}, DataError, "not a cohort"),
    ],
)
def test_finetuning_reports_problems_before_run_exists(small_archive, tmp_path, changes, error, says):
    with pytest.raises(error, match=says):
        finetune(finetuning(small_archive, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
