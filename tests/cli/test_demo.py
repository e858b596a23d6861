"""The demo at a small size: every stage runs, is announced, and is not repeated."""

import json
import re

import pytest
from typer.testing import CliRunner

from medssl.errors import UsageError
from medssl.runs.run import Run
from medssl.tracking.sync import sync
from medssl_cli.commands.demo import DemoSize, run_demo
from medssl_cli.main import app

# MLflow's own warnings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

SMALL = DemoSize(
    dicom_patients=1,
    nifti_cases=12,
    shape=(20, 18, 16),
    patch=(16, 16, 16),
    pretrain_steps=2,
    finetune_steps=2,
    num_labelled=(1, 2),
    seeds=2,
    workers=0,
)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """(folder, review page) of a demo that went through."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    return folder, run_demo(folder, SMALL)


def test_demo_writes_review_page_of_both_inits(first):
    folder, page = first
    assert page == folder / "evidence" / "review.html"
    assert "scratch" in page.read_text()
    content = json.loads((folder / "evidence" / "label_efficiency.json").read_text())
    compared = {(row["num_labelled"], row["init"]) for row in content["rows"]}
    assert compared == {(n, init) for n in (1, 2) for init in ("scratch", "pretrained")}


def test_demo_mirrors_finished_runs_to_mlflow(first):
    folder, _ = first
    runs = [Run.open(path.parent) for path in sorted(folder.rglob("run.json"))]
    assert len(runs) == 1 + 2 * 2 * 2
    assert {run.status for run in runs} == {"finished"}
    assert (folder / "mlflow.db").exists()
    assert [sync(run.folder).sent for run in runs] == [0] * len(runs)
    assert not list(folder.glob("*/mlflow.db"))


def test_demo_repeats_no_finished_stage(first, capsys):
    folder, page = first
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in {".b2nd", ".safetensors"}}
    assert run_demo(folder, SMALL) == page
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in {".b2nd", ".safetensors"}}
    assert before == after
    printed = capsys.readouterr().out
    assert [int(number) for number in re.findall(r"^(\d)/4", printed, flags=re.MULTILINE)] == [1, 2, 3, 4]
    assert printed.splitlines()[-2:] == [f"review: {page}", f"MLflow: medssl ui {folder}"]


def test_demo_completes_interrupted_run(tmp_path, first):
    import shutil

    folder = tmp_path / "demo"
    shutil.copytree(first[0], folder)
    shutil.rmtree(folder / "evidence")
    (folder / "archive").rename(folder / ".archive.tmp")
    assert run_demo(folder, SMALL).exists()
    assert not (folder / ".archive.tmp").exists()


def test_demo_leaves_foreign_folder_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(UsageError, match="is not empty and does not hold this demo"):
        run_demo(tmp_path, SMALL)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
