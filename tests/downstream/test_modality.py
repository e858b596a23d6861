"""A model that has seen CT and MR prepares each scan as what it is, and takes none for what it is not."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from medssl.archive.nifti.write import write_nifti
from medssl.cohort.cohort import Cohort
from medssl.config import FinetuneConfig, LoopConfig
from medssl.downstream.evaluation import predict_stored
from medssl.downstream.finetuning import finetune
from medssl.downstream.modality import chosen_modality, declared_modality, modality_to_use
from medssl.downstream.prediction import predict
from medssl.encoders.weights import load_network
from medssl.errors import DataError, UsageError
from medssl.geometry import to_array_axes
from medssl.ingestion.archive_to_cohort import ingest
from medssl.ingestion.one_scan import load_scan
from medssl.ingestion.settings import IngestSettings
from medssl.store.volumes import open_volume
from medssl_cli.main import app
from tests.archive.written_dicom import Series, random_voxels

PATCH = (16, 16, 16)
SHAPE = (18, 20, 22)


def write_case(dataset: Path, number: int, *, low: int, high: int) -> None:
    """A bright box in noise around `low`, in the layout of the Medical Segmentation Decathlon."""
    draw = np.random.default_rng(number)
    label = np.zeros(SHAPE, np.uint8)
    label[4:12, 5:14, 6:15] = 1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    scan = (np.where(label == 1, high, low) + draw.normal(0, 20, SHAPE)).astype(np.int16)
    for kind, array in (("imagesTr", scan), ("labelsTr", label)):
        (dataset / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), dataset / kind / f"{dataset.name}{number}.nii.gz")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The folder of a cohort of two CT and four MR scans, and of a model that has seen all of them."""
    folder = tmp_path_factory.mktemp("mixed")
    for name, modality, numbers, values in (("a", "CT", 2, (-900, 60)), ("b", "MR", 4, (40, 400))):
        for number in range(numbers):
            write_case(folder / name, number, low=values[0], high=values[1])
        facts = {"modality": {"0": modality}, "labels": {"0": "background", "1": "box"}}
        (folder / name / "dataset.json").write_text(json.dumps(facts))
    rows = [f"{path.name},train" for path in folder.glob("*/imagesTr/*")]
    (folder / "splits.csv").write_text("\n".join(["file,split", *rows]))
    (folder / "key").write_text("ab" * 32)
    (folder / "key").chmod(0o600)
    settings = IngestSettings(splits=folder / "splits.csv", key_file=folder / "key", workers=0)
    ingest([folder / "a", folder / "b"], folder / "cohort", settings=settings)
    loop = LoopConfig(steps=2, batch_size=2, workers=0, devices=1, log_every=5)
    config = FinetuneConfig(cohort=folder / "cohort", init="scratch", num_labelled="all", patch=PATCH, loop=loop)
    finetune(config, folder / "model")
    return folder


def predicted(model, source, out, **options):
    (result,) = predict(model, source, out, **options)
    assert result.output is not None, result.reason
    return np.asarray(nib.load(result.output).dataobj)


def written(folder, modality):
    """A DICOM series, and the same scan as NIfTI."""
    voxels = random_voxels() // 16 + 1000 * (np.indices((14, 11, 9)).sum(0) > 15).astype(np.uint16)
    Series(voxels, modality=modality).write(folder / "series")
    write_nifti(folder / "scan.nii.gz", load_scan(folder / "series"))
    return folder / "series", folder / "scan.nii.gz"


def test_model_records_all_training_modalities(mixed):
    assert load_network(mixed / "model")[1].modalities == ("CT", "MR")


@pytest.mark.parametrize(("name", "modality"), [("a", "CT"), ("b", "MR")])
def test_prediction_with_chosen_modality_equals_evaluation(mixed, tmp_path, name, modality):
    """The rarer modality once came out as if it were the more frequent one."""
    cohort = Cohort.open(mixed / "cohort")
    network, facts = load_network(mixed / "model")
    scan = mixed / name / "imagesTr" / f"{name}1.nii.gz"
    guess = predicted(mixed / "model", scan, tmp_path, modality=modality.lower())
    stored = [open_volume(cohort.store, row.scan_id) for row in cohort.accepted() if row.modality == modality]
    cpu = torch.device("cpu")
    evaluated = [
        to_array_axes(predict_stored(network, one, patch=PATCH, overlap=facts.overlap, device=cpu).numpy())
        for one in stored
    ]
    assert len(np.unique(guess)) > 1
    assert max((guess == other).mean() for other in evaluated) == 1.0


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_dicom_series_declares_its_modality(mixed, tmp_path, modality):
    series, scan = written(tmp_path, modality)
    other = {"CT": "MR", "MR": "CT"}[modality]
    expected, wrong = (predicted(mixed / "model", scan, tmp_path / m, modality=m) for m in (modality, other))
    assert not np.array_equal(expected, wrong)
    assert np.array_equal(predicted(mixed / "model", series, tmp_path / "alone"), expected)
    assert np.array_equal(predicted(mixed / "model", series, tmp_path / "named", modality=other), expected)


def test_scan_of_unknown_modality_is_left_out_with_remedy(mixed, tmp_path):
    series, scan = written(tmp_path, "PT")
    with pytest.raises(DataError, match="does not declare its modality, and the model was trained on CT and MR"):
        predict(mixed / "model", scan, tmp_path / "out")
    with pytest.raises(DataError, match="modality PT, and the model was trained on CT and MR"):
        predict(mixed / "model", series, tmp_path / "out")
    taken_for = predicted(mixed / "model", series, tmp_path / "out", modality="MR")
    assert np.array_equal(taken_for, predicted(mixed / "model", scan, tmp_path / "same", modality="MR"))


def test_predict_command_explains_modality_option(mixed, tmp_path):
    scans = mixed / "a" / "imagesTr"
    call = ["predict", "--model", mixed / "model", "--input", scans, "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, [*map(str, call)])
    assert (result.exit_code, list(tmp_path.rglob("*.nii.gz"))) == (1, [])
    assert result.stderr.count("left out. It does not declare its modality") == 2
    result = CliRunner().invoke(app, [*map(str, call), "--modality", "PT"])
    assert result.exit_code == 2
    assert "--modality is 'PT', and the model was trained on CT and MR." in result.stderr
    result = CliRunner().invoke(app, [*map(str, call), "--modality", "CT"])
    assert (result.exit_code, "2 of 2 scans segmented" in result.stdout) == (0, True)


def test_model_without_modalities_takes_any_scan(mixed, tmp_path):
    shutil.copytree(mixed / "model", tmp_path / "model")
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    del record["metadata"]["modalities"]
    (tmp_path / "model" / "model.json").write_text(json.dumps(record))
    assert load_network(tmp_path / "model")[1].modalities == ()
    predicted(tmp_path / "model", mixed / "a" / "imagesTr" / "a0.nii.gz", tmp_path / "out")


@pytest.mark.parametrize(
    ("declared", "trained_on", "chosen", "expected"),
    [
        ("CT", ("CT", "MR"), None, "CT"),
        ("CT", ("CT", "MR"), "MR", "CT"),
        (None, ("CT", "MR"), "MR", "MR"),
        (None, ("MR",), None, "MR"),
        (None, ("CT", "unknown"), None, "unknown"),
        ("MR", ("unknown",), None, "unknown"),
        ("MR", ("CT",), "CT", "CT"),
        ("MR", ("CT",), None, "Take a model for MR"),
        (None, ("CT", "MR"), None, "Name its modality with --modality"),
    ],
)
def test_modality_to_use(declared, trained_on, chosen, expected):
    if " " in expected:
        with pytest.raises(DataError, match=expected):
            modality_to_use(declared, trained_on=trained_on, chosen=chosen)
    else:
        assert modality_to_use(declared, trained_on=trained_on, chosen=chosen) == expected


def test_chosen_modality_must_be_trained_on():
    assert chosen_modality("ct", ("CT", "MR")) == "CT"
    with pytest.raises(UsageError, match="Choose from these"):
        chosen_modality("CT", ("MR", "unknown"))
    with pytest.raises(UsageError, match="Leave out --modality"):
        chosen_modality("CT", ("unknown",))


def test_folder_of_two_modalities_is_refused(tmp_path):
    for modality in ("CT", "MR"):
        Series(random_voxels(), modality=modality).write(tmp_path)
    with pytest.raises(DataError, match="images of CT and MR"):
        declared_modality(tmp_path)
