"""Bad input of every kind: a clear sentence, the right exit code, no partial output, and the other files are processed.

Exit codes: 2 for wrong usage, 1 for a failure.
"""

import errno
import gzip
import json
import os
import shutil

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from medssl.geometry import Volume
from medssl.runs.run import Run
from medssl_cli.main import app
from medssl_phantoms import labelled_case, make_archive, write_nifti
from medssl_tasks.masked_volume import MaskedVolume

SHAPE = (22, 19, 17)
SHORT = ["--steps", "1", "--set", "loop.batch_size=2", "--set", "loop.workers=0", "--set", "tracking.enabled=false"]
PATCH = ["--set", "patch=[16,16,16]"]


def medssl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result, code, *words):
    """Assert that the command ended with `code` and a sentence that contains all `words`."""
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.stderr.count("Error: ") == 1
    message = result.stderr.split("Error: ")[1]
    assert [word for word in words if word not in message] == []


def settle(folder):
    """Date files back: ingest leaves alone what changed seconds ago."""
    for path in folder.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))


def is_untouched(folder):
    """Nothing was written: no folder, or an empty one."""
    return not folder.exists() or not any(folder.iterdir())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Good scans, a cohort of them, and a finished pretraining and fine-tuning; tests must not write to them."""
    folder = tmp_path_factory.mktemp("world")
    os.environ["MEDSSL_KEY_FILE"] = str(folder / "key")
    archive = make_archive(folder / "archive", dicom_patients=0, nifti_cases=5, shape=SHAPE)
    splits = "file,split\n" + "".join(f"case_00{n}.nii.gz,{'test' if n == 4 else 'train'}\n" for n in range(5))
    (folder / "splits.csv").write_text(splits)
    calls = [
        ["ingest", archive.images, "--label-dir", archive.labels, "--splits", folder / "splits.csv", "--workers", "0"],
        ["pretrain", "--cohort", folder / "cohort", "--task", "masked-volume", *SHORT, *PATCH],
        ["finetune", "--cohort", folder / "cohort", "--init", folder / "run", "--num-labelled", "1", *SHORT, *PATCH],
    ]
    for call, out in zip(calls, ("cohort", "run", "model"), strict=True):
        result = medssl(*call, "--out", folder / out)
        assert result.exit_code == 0, result.output
    yield folder
    del os.environ["MEDSSL_KEY_FILE"]


# Ingest: paths


def test_ingest_names_empty_folder(world, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(medssl("ingest", tmp_path / "empty", "--out", tmp_path / "cohort"), 1, "empty", "holds no file")
    assert is_untouched(tmp_path / "cohort")


def test_ingest_without_scans_fails(world, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("words")
    settle(tmp_path)
    result = medssl("ingest", tmp_path / "papers", "--out", tmp_path / "cohort", "--workers", "0")
    refused(result, 1, "no scan was accepted")
    assert "next:" not in result.output


@pytest.mark.parametrize("option", ["source", "label-dir", "splits"])
def test_ingest_names_missing_path(world, tmp_path, option):
    given = [world / "archive" / "images"] if option != "source" else [tmp_path / "nowhere"]
    given += [] if option == "source" else [f"--{option}", tmp_path / "nowhere"]
    refused(medssl("ingest", *given, "--out", tmp_path / "cohort"), 2, str(tmp_path / "nowhere"))
    assert is_untouched(tmp_path / "cohort")


def test_ingest_leaves_foreign_folder_alone(world, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    refused(medssl("ingest", world / "archive", "--out", tmp_path / "mine"), 2, str(tmp_path / "mine"), "--out")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_ingest_rejects_file_as_cohort(world, tmp_path):
    (tmp_path / "file").write_text("words")
    refused(medssl("ingest", world / "archive", "--out", tmp_path / "file"), 2, "is a file")


# Ingest: files


def with_bad_file(world, tmp_path, name):
    """Copy the scans of `world` and return the path for a bad one among them."""
    shutil.copytree(world / "archive", tmp_path / "archive")
    return tmp_path / "archive" / "images" / name


def ingested(tmp_path):
    """Report of an ingest of the archive in `tmp_path`, which must succeed."""
    settle(tmp_path / "archive")
    archive = tmp_path / "archive"
    call = ["ingest", archive / "images", "--label-dir", archive / "labels", "--out", tmp_path / "cohort"]
    result = medssl(*call, "--json", "--workers", "0")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def case(number=6):
    return labelled_case(0, number, shape=SHAPE)


def truncated(path):
    write_nifti(path, case()[0])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.touch()


def words_in_place_of_voxels(path):
    path.write_bytes(gzip.compress(b"this is no scan " * 100))


def dangling(path):
    path.symlink_to(path.parent / "gone.nii.gz")


def with_nan(path):
    voxels = case()[0].voxels.astype(np.float32)
    voxels[3, 4, 5] = np.nan
    write_nifti(path, Volume(voxels, case()[0].affine_ras_mm))


def flat(path):
    nibabel.save(nibabel.Nifti1Image(case()[0].voxels[:, :, 5], case()[0].affine_ras_mm), path)


def in_time(path):
    nibabel.save(nibabel.Nifti1Image(np.stack([case()[0].voxels] * 4, axis=-1), case()[0].affine_ras_mm), path)


BAD_FILES = [
    (truncated, {"TRUNCATED"}),
    (empty, {"EMPTY_FILE"}),
    (words_in_place_of_voxels, {"BAD_HEADER", "NOT_DICOM", "TRUNCATED"}),
    (with_nan, {"NAN_VOXELS"}),
    (flat, {"NOT_3D"}),
    (in_time, {"NOT_3D"}),
]


@pytest.mark.parametrize(("spoil", "codes"), BAD_FILES, ids=lambda value: getattr(value, "__name__", ""))
def test_ingest_rejects_only_the_bad_file(world, tmp_path, spoil, codes):
    spoil(with_bad_file(world, tmp_path, "bad.nii.gz"))
    report = ingested(tmp_path)
    assert report["n_scans"] == report["n_labelled"] == 5
    assert report["n_rejected"] == 1
    assert set(report["reasons"]) <= codes
    assert len(list((tmp_path / "cohort" / "store").iterdir())) == 10


def test_ingest_rejects_only_the_unreadable_file(world, tmp_path):
    path = with_bad_file(world, tmp_path, "bad.nii.gz")
    write_nifti(path, case()[0])
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user can read every file, whatever its mode")
    report = ingested(tmp_path)
    assert report["n_scans"] == 5
    assert report["reasons"] == {"IO_ERROR": 1}


def test_ingest_reports_label_without_image(world, tmp_path):
    with_bad_file(world, tmp_path, "")
    write_nifti(tmp_path / "archive" / "labels" / "lonely.nii.gz", case()[1])
    report = ingested(tmp_path)
    assert report["n_scans"] == 5
    assert report["reasons"] == {"LABEL_WITHOUT_IMAGE": 1}


def test_ingest_drops_label_on_another_grid(world, tmp_path):
    image, label = case()
    write_nifti(with_bad_file(world, tmp_path, "shifted.nii.gz"), image)
    moved = label.affine_ras_mm + np.array([[0, 0, 0, 5.0], *[[0, 0, 0, 0]] * 3])
    write_nifti(tmp_path / "archive" / "labels" / "shifted.nii.gz", Volume(label.voxels, moved))
    report = ingested(tmp_path)
    assert (report["n_scans"], report["n_labelled"]) == (6, 5)
    assert report["reasons"] == {"LABEL_GRID": 1}


# Settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "masked-volum"], ["masked-volum", "masked-volume"]),
        (["--task", "masked-volume", "--encoder", "dynunett"], ["dynunett", "did you mean 'dynunet'"]),
        (
            ["--task", "masked-volume", "--set", "optim.warmup=3"],
            ["optim.warmup", "did you mean 'optim.warmup_fraction'"],
        ),
        (
            ["--task", "masked-volume", "--set", "task.mask_ratoi=0.5"],
            ["task.mask_ratoi", "did you mean 'task.mask_ratio'"],
        ),
        (["--task", "masked-volume", "--set", "task.mask_ratio=3"], ["task.mask_ratio", "3"]),
        (["--task", "masked-volume", "--set", "optim.lr=-1"], ["optim.lr", "-1", "greater than 0"]),
        (["--task", "masked-volume", "--set", "loop.steps"], ["loop.steps"]),
        (["--task", "masked-volume", "--set", "patch=[17,16,16]"], ["17", "[16, 16, 16]"]),
        ([], ["task", "required"]),
    ],
)
def test_invalid_setting_is_named_with_suggestion(world, tmp_path, options, words):
    call = ["pretrain", "--cohort", world / "cohort", "--out", tmp_path / "run", *SHORT, *PATCH, *options]
    refused(medssl(*call), 2, *words)
    assert is_untouched(tmp_path / "run")


def test_missing_or_invalid_config_file_is_named(world, tmp_path):
    call = ["pretrain", "--cohort", world / "cohort", "--out", tmp_path / "run", "--task", "simclr", "--config"]
    refused(medssl(*call, tmp_path / "none.yaml"), 2, "none.yaml")
    (tmp_path / "bad.yaml").write_text("loop: [steps: 3")
    refused(medssl(*call, tmp_path / "bad.yaml"), 2, "bad.yaml")
    assert is_untouched(tmp_path / "run")


# Training


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_training_names_missing_cohort(tmp_path, command):
    option = ["--task", "simclr"] if command == "pretrain" else ["--init", "scratch", "--num-labelled", "1"]
    call = [command, "--cohort", tmp_path / "nowhere", "--out", tmp_path / "run", *option, *SHORT]
    refused(medssl(*call), 2, "nowhere", "does not exist")
    (tmp_path / "nowhere").mkdir()
    refused(medssl(*call), 1, "is not a cohort", "medssl ingest")
    assert is_untouched(tmp_path / "run")


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
@pytest.mark.parametrize("taken", ["file", "run"])
def test_training_leaves_foreign_folder_alone(world, tmp_path, command, taken):
    out = world / "run" if taken == "run" else tmp_path
    (tmp_path / "mine.txt").write_text("words")
    before = sorted(path.name for path in out.rglob("*"))
    option = ["--task", "simclr"] if command == "pretrain" else ["--init", "scratch", "--num-labelled", "1"]
    call = [command, "--cohort", world / "cohort", "--out", out, *option, *SHORT, *PATCH]
    refused(medssl(*call), 2, str(out), "--out")
    assert sorted(path.name for path in out.rglob("*")) == before


def test_pretrain_pads_scan_smaller_than_patch(world, tmp_path):
    """Such a scan is accepted: outside of it there is air, and the region knows where the scan ends."""
    call = ["pretrain", "--cohort", world / "cohort", "--task", "masked-volume", "--out", tmp_path / "run", *SHORT]
    result = medssl(*call, "--set", "patch=[32,32,32]")
    assert result.exit_code == 0, result.output


def test_finetune_rejects_too_many_labels(world, tmp_path):
    call = ["finetune", "--cohort", world / "cohort", "--init", "scratch", "--out", tmp_path / "run", *SHORT, *PATCH]
    refused(medssl(*call, "--num-labelled", "9"), 2, "9", "4")
    refused(medssl(*call, "--num-labelled", "few"), 2, "few")
    assert is_untouched(tmp_path / "run")


def test_finetune_names_missing_init(world, tmp_path):
    call = ["finetune", "--cohort", world / "cohort", "--num-labelled", "1", "--out", tmp_path / "run", *SHORT, *PATCH]
    refused(medssl(*call, "--init", tmp_path / "nowhere"), 2, "nowhere")
    assert is_untouched(tmp_path / "run")


@pytest.mark.parametrize("asked", [["--encoder", "segresnet"], ["--set", "encoder.preset=small"]], ids="=".join)
def test_finetune_rejects_encoder_beside_init(world, tmp_path, asked):
    call = ["finetune", "--cohort", world / "cohort", "--num-labelled", "1", "--out", tmp_path / "run", *SHORT, *PATCH]
    refused(medssl(*call, "--init", world / "run", *asked), 2, " ".join(asked), str(world / "run"), "'dynunet'")
    assert is_untouched(tmp_path / "run")
    # The same one, and one that a file names beside its own run, ask for nothing else.
    (tmp_path / "file.yaml").write_text("encoder: segresnet")
    same = medssl(*call, "--init", world / "run", "--encoder", "dynunet", "--config", tmp_path / "file.yaml")
    assert same.exit_code == 0, same.output


def test_finetune_rejects_weights_of_another_architecture(world, tmp_path):
    other = ["--set", "encoder.preset=small", "--out", tmp_path / "other"]
    made = medssl("pretrain", "--cohort", world / "cohort", "--task", "masked-volume", *SHORT, *PATCH, *other)
    assert made.exit_code == 0, made.output
    shutil.copy(world / "run" / "encoder.safetensors", tmp_path / "other")
    call = ["finetune", "--cohort", world / "cohort", "--init", tmp_path / "other"]
    call += ["--num-labelled", "1", *SHORT, *PATCH]
    refused(medssl(*call, "--out", tmp_path / "run"), 1, "encoder.safetensors")
    assert is_untouched(tmp_path / "run")


def test_finetune_rejects_damaged_weights(world, tmp_path):
    shutil.copytree(world / "run", tmp_path / "start")
    weights = tmp_path / "start" / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    call = ["finetune", "--cohort", world / "cohort", "--init", tmp_path / "start"]
    call += ["--num-labelled", "1", *SHORT, *PATCH]
    refused(medssl(*call, "--out", tmp_path / "run"), 1, "encoder.safetensors")


def test_resume_without_run_is_an_error(world, tmp_path):
    call = ["pretrain", "--cohort", world / "cohort", "--task", "simclr", "--out", tmp_path / "run", "--resume"]
    refused(medssl(*call), 2, "--resume")
    assert is_untouched(tmp_path / "run")


@pytest.mark.parametrize("place", ["def forward", "def after_step", "def crops", "def __init__", "def automatic"])
def test_task_that_exits_fails_the_run(world, tmp_path, place):
    task = MaskedVolume.__module__
    (tmp_path / "quits.py").write_text(
        f"import medssl\nfrom {task} import MaskedVolume\n\n\nclass Quits(MaskedVolume):\n"
        f'    """Ends."""\n\n    name = "quits"\n\n    {place}(self, *given):\n        raise SystemExit(0)\n\n\n'
        "@medssl.hookimpl\ndef medssl_pretext_tasks():\n    return [Quits]\n"
    )
    call = ["pretrain", "--cohort", world / "cohort", "--task", "quits", "--plugin", tmp_path / "quits.py"]
    result = medssl(*call, *SHORT, *PATCH, "--out", tmp_path / "run")
    refused(result, 1, "SystemExit: 0", "a plugin" if place == "def automatic" else "quits.py sha256:")
    assert is_untouched(tmp_path / "run") or Run.open(tmp_path / "run").status == "failed"


# No space


def full_disk(monkeypatch):
    """Let every flush to the disk fail as on a full disk."""

    def fsync(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_ingest_on_full_disk_gives_advice(world, tmp_path, monkeypatch):
    full_disk(monkeypatch)
    archive = world / "archive"
    result = medssl("ingest", archive / "images", "--out", tmp_path / "cohort", "--workers", "0")
    refused(result, 1, "No space left on device")
    assert not (tmp_path / "cohort" / "manifest.parquet").exists()


def test_training_on_full_disk_gives_advice(world, tmp_path, monkeypatch):
    full_disk(monkeypatch)
    call = ["pretrain", "--cohort", world / "cohort", "--task", "masked-volume", *SHORT, *PATCH]
    refused(medssl(*call, "--out", tmp_path / "run"), 1, "is full", "Free some space")
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


# Prediction


@pytest.mark.parametrize("missing", ["model", "input"])
def test_predict_names_missing_path(world, tmp_path, missing):
    given = {"model": world / "model", "input": world / "archive" / "images", missing: tmp_path / "nowhere"}
    call = ["predict", "--model", given["model"], "--input", given["input"], "--out", tmp_path / "out"]
    refused(medssl(*call), 2, "nowhere")
    assert is_untouched(tmp_path / "out")


def test_predict_rejects_pretraining_run(world, tmp_path):
    call = ["predict", "--model", world / "run", "--input", world / "archive" / "images", "--out", tmp_path / "out"]
    refused(medssl(*call), 1, "model.json")
    assert is_untouched(tmp_path / "out")


@pytest.mark.parametrize("below", ["", "x"])
@pytest.mark.parametrize("command", ["predict", "label-efficiency", "demo", "ingest", "convert"])
def test_file_in_place_of_out_folder_is_named(world, tmp_path, command, below):
    (tmp_path / "afile").write_text("words")
    scans, cohort = world / "archive" / "images", ["--cohort", world / "cohort", *SHORT, *PATCH]
    options = {
        "predict": ["--model", world / "model", "--input", scans],
        "label-efficiency": ["--init", world / "run", "--num-labelled", "1", "--seeds", "1", *cohort],
        "ingest": [scans, "--workers", "0"],
        "convert": [scans, "--workers", "0"],
    }
    result = medssl(command, *options.get(command, []), "--out", tmp_path / "afile" / below)
    refused(result, 2, "afile")
    assert (tmp_path / "afile").read_text() == "words"


def test_too_long_path_is_named(world, tmp_path):
    call = ["predict", "--model", world / "model", "--input", world / "archive" / "images"]
    refused(medssl(*call, "--out", tmp_path / ("x" * 300)), 2, "File name too long", "Choose a shorter path.")


def test_predict_overwrites_only_on_request(world, tmp_path):
    (tmp_path / "out").mkdir()
    by_hand = tmp_path / "out" / "case_003_labels.nii.gz"
    by_hand.write_bytes(b"hours of work")
    call = ["predict", "--model", world / "model", "--input", world / "archive" / "images", "--out", tmp_path / "out"]
    refused(medssl(*call), 2, str(by_hand), "exists", "--out", "--overwrite")
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"hours of work"]
    result = medssl(*call, "--overwrite")
    assert (result.exit_code, "5 of 5 scans segmented" in result.stdout) == (0, True)
    assert nibabel.load(by_hand).shape == nibabel.load(world / "archive" / "images" / "case_003.nii.gz").shape


def test_predict_skips_files_that_are_not_scans(world, tmp_path):
    scans = with_bad_file(world, tmp_path, "README.md").parent
    (scans / "README.md").write_text("words")
    result = medssl("predict", "--model", world / "model", "--input", scans, "--out", tmp_path / "out")
    assert (result.exit_code, "5 of 5 scans segmented" in result.stdout) == (0, True)
    assert result.stderr == f"skipped files that are not scans: 1 ({scans / 'README.md'})\n"
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("words")
    call = ["predict", "--model", world / "model", "--input", tmp_path / "papers", "--out", tmp_path / "none"]
    refused(medssl(*call), 2, "papers holds no scan", "none of its 1 files is a NIfTI file or a DICOM image")
    assert is_untouched(tmp_path / "none")


def test_predict_continues_after_unreadable_scan(world, tmp_path):
    path = with_bad_file(world, tmp_path, "bad.nii.gz")
    truncated(path)
    result = medssl("predict", "--model", world / "model", "--input", path.parent, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "bad.nii.gz: left out." in result.stderr
    assert "5 of 6 scans segmented" in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"case_00{n}_labels.nii.gz" for n in range(5)]
