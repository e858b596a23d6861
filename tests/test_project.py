"""The frame of the project: versions that agree, the licence, types for users, and where medssl runs."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

import medssl

ROOT = Path(__file__).parents[1]
PACKAGES = ("medssl", "plugins/medssl_tasks", "cli/medssl_cli", "sample_data/medssl_phantoms")


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_version_equals_metadata():
    assert medssl.__version__ == version("medssl"), "install again: make --always-make install"


def test_version_equals_citation_and_changelog():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == medssl.__version__
    assert re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == medssl.__version__


def test_licence_text_ships_with_wheel():
    """`.ci/run` looks into the built wheel as well."""
    project = pyproject()["project"]
    assert project["license"] == "Apache-2.0"
    assert project["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_package_ships_types():
    assert pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(PACKAGES)
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)


def test_workflow_runs_ci_script():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_import_on_windows_names_the_remedy():
    code = "import sys; sys.platform = 'win32'; import medssl"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "medssl does not run on Windows" in result.stderr
    assert "WSL 2" in result.stderr
