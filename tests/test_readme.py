"""README.md and docs/quickstart.md: links lead to files, and commands work. In every document: paths exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medssl_cli.main import app
from medssl_phantoms import make_archive

# MLflow's own warnings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
EVERY_DOCUMENT = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ABSENT = ("medssl/ingest",)  # docs/decisions.md says why there is no such folder
# Shortens a training for the test. Everything else runs as it is written.
SHORT = ["--set", "loop.batch_size=2", "--set", "patch=[16,16,16]", "--set", "loop.workers=0", "--steps", "1"]
TRAINING = ("pretrain", "finetune", "label-efficiency")
# These wait for a user; the test only checks that they exist.
NOT_RUN = ("ui", "demo")


def commands(document):
    """Lines of the document's shell blocks that start with `medssl`."""
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("medssl ")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    assert links
    assert [link for link in links if not link.startswith("http") and not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", EVERY_DOCUMENT, ids=lambda path: path.name)
def test_paths_in_code_style_exist(document):
    """Placeholders such as `plugins/medssl_tasks/<task>.py` are not checked."""
    named = re.findall(r"`((?:medssl|plugins|cli|tests|docs|sample_data|benchmarks)/[\w/.-]*)`", document.read_text())
    assert [path for path in named if path not in ABSENT and not (ROOT / path).exists()] == []


def test_readme_make_targets_exist():
    targets = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    assert set(targets) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_quickstart_script_makes_folders(tmp_path):
    lines = [
        line.strip() for line in DOCUMENTS[1].read_text().split("## 1.")[0].splitlines() if line.startswith("    ")
    ]
    script = "\n".join(lines).replace("--nifti-cases 24", "--nifti-cases 2 --dicom-patients 1")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    assert {"scans", "labels", "new_scans"} <= {folder.name for folder in tmp_path.iterdir()}
    assert len(list((tmp_path / "new_scans").iterdir())) == 2


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """A working directory with what the documents assume: scans/, labels/ and new_scans/."""
    made = make_archive(tmp_path / "made", dicom_patients=1, nifti_cases=16, shape=(20, 19, 18))
    made.images.rename(tmp_path / "scans")
    made.dicom.rename(tmp_path / "scans" / "dicom")
    made.labels.rename(tmp_path / "labels")
    make_archive(tmp_path / "more", seed=1, dicom_patients=0, nifti_cases=1, shape=(20, 19, 18)).images.rename(
        tmp_path / "new_scans"
    )
    (tmp_path / "key").write_text("ab" * 32)
    (tmp_path / "key").chmod(0o600)
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_quickstart_commands_are_those_of_readme():
    readme, quickstart = ([line for line in commands(path) if "config show" not in line] for path in DOCUMENTS)
    assert [line for line in quickstart if line not in readme and line != "medssl ui runs"] == []


@pytest.mark.slow
def test_readme_commands_run_in_order(scans):
    lines = commands(DOCUMENTS[0])
    assert {"ingest", "pretrain", "finetune", "label-efficiency", "predict"} <= {line.split()[1] for line in lines}
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] in NOT_RUN:
            words = [words[0], "--help"]
        elif words[0] in TRAINING:
            words = [*" ".join(words).replace("--seeds 3", "--seeds 1").split(), *SHORT]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    assert (scans / "evidence" / "review.html").exists()
    assert list((scans / "predictions").glob("*.nii.gz"))
