"""The whole way from Python, as README.md and docs/python.md show it."""

import re
from pathlib import Path

import pytest
import torch

import medssl
from medssl.errors import ConfigError
from medssl_phantoms import make_archive

# MLflow's own warnings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (20, 19, 18)
# What makes a training short enough for a test. Everything else runs as it is written.
SHORT = '"patch": [16, 16, 16], "loop.batch_size": 2, "loop.workers": 0, "loop.steps": 1'


def python_blocks(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A working directory with what the documents assume: scans/, labels/ and new_scans/."""
    made = make_archive(tmp_path / "made", dicom_patients=0, nifti_cases=16, shape=SHAPE)
    made.images.rename(tmp_path / "scans")
    made.labels.rename(tmp_path / "labels")
    make_archive(tmp_path / "more", seed=1, dicom_patients=0, nifti_cases=1, shape=SHAPE).images.rename(
        tmp_path / "new_scans"
    )
    (tmp_path / "key").write_text("ab" * 32)
    (tmp_path / "key").chmod(0o600)
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_readme_python_runs_the_whole_way(archive):
    (block,) = python_blocks("README.md")
    assert len(block.strip().splitlines()) <= 10
    names = {}
    short = block.replace('"cohort": "cohort"', f'"cohort": "cohort", {SHORT}').replace("[3, 5]", "[1], seeds=1")
    exec(short, names)
    assert (archive / "evidence" / "review.html").exists()
    assert list((archive / "predictions").glob("*.nii.gz"))
    assert list(archive.rglob("mlflow.db")), "the mirror did not run"

    evaluation = medssl.evaluate(names["model"].folder, "cohort")
    assert evaluation.dice == names["model"].dice
    run = medssl.Run.open("runs/masked")
    assert run.status == "finished"
    assert medssl.Cohort.open("cohort").rows
    features = medssl.load_encoder("runs/masked")(torch.zeros(1, 1, 16, 16, 16))
    assert features[0].shape[0] == 1


def test_pretrain_names_an_unknown_setting(tmp_path):
    with pytest.raises(ConfigError, match=r"optim\.rate"):
        medssl.pretrain({"cohort": tmp_path, "task": "simclr", "optim.rate": 1}, tmp_path / "run")


def test_ingest_names_an_unknown_setting(tmp_path):
    with pytest.raises(ConfigError, match="label_folder"):
        medssl.ingest(tmp_path, tmp_path / "cohort", {"label_folder": tmp_path})


def test_python_document_calls_what_exists(archive):
    """The blocks of docs/python.md that need no training run as they stand."""
    *_, config, disk = python_blocks("docs/python.md")
    names = {"medssl": medssl}
    exec(config, names)
    assert names["config"].optim.lr == 3e-4
    assert re.findall(r"medssl\.(\w+)", disk) == ["Cohort", "Run", "load_encoder"]
