"""`medssl plugins new` and `medssl plugins check`."""

import ast
import json
import time
import tomllib

import pytest
from command_line import medssl
from installed_plugins import task_source

HOOK = "import medssl\n@medssl.hookimpl\ndef "


@pytest.fixture
def without_the_second_process(monkeypatch):
    """The kit without its one check that starts processes; one test below has it."""
    from medssl.conformance import kit

    run_checks = kit.run_checks
    monkeypatch.setattr(
        "medssl.testing.run_checks", lambda cls, options: run_checks(cls, options=options, two_ranks=False)
    )


def test_new_task_is_short_and_passes_checks(tmp_path):
    assert f"wrote {tmp_path}/masked_cubes.py" in medssl("plugins", "new", "masked-cubes", "--out", tmp_path)
    lines = [line for line in (tmp_path / "masked_cubes.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 30
    started = time.process_time()
    output = medssl("plugins", "check", tmp_path / "masked_cubes.py")
    assert time.process_time() - started < 15
    assert "✗" not in output
    assert "17 of 17 checks passed." in output


def test_new_package_is_complete(tmp_path):
    medssl("plugins", "new", "masked-cubes", "--package", "--out", tmp_path)
    project = tmp_path / "medssl-masked-cubes"
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert files == {
        "pyproject.toml",
        "medssl_masked_cubes.py",
        "tests/test_masked_cubes.py",
        "README.md",
        ".github/workflows/check.yml",
    }
    facts = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert facts["entry-points"]["medssl"] == {"masked-cubes": "medssl_masked_cubes"}
    assert facts["dependencies"] == ["medssl>=0.1,<0.2"]
    for path in project.rglob("*.py"):
        ast.parse(path.read_text())
    assert "${" not in "".join((project / file).read_text() for file in files)


def test_new_rejects_invalid_and_taken_names(tmp_path):
    assert "is not a valid name for a task" in medssl("plugins", "new", "Masked Cubes", "--out", tmp_path, code=2)
    assert "There is a task 'simclr' already" in medssl("plugins", "new", "simclr", "--out", tmp_path, code=2)
    medssl("plugins", "new", "mine", "--out", tmp_path)
    assert "exists" in medssl("plugins", "new", "mine", "--out", tmp_path, code=2)
    medssl("plugins", "new", "mine", "--package", "--out", tmp_path)
    assert "exists" in medssl("plugins", "new", "mine", "--package", "--out", tmp_path, code=2)


@pytest.mark.parametrize("name", ["none", "true", "false", "class"])
@pytest.mark.parametrize("kind", [[], ["--package"], ["--encoder"]], ids=["file", "package", "encoder"])
def test_new_rejects_python_keywords(tmp_path, name, kind):
    assert f"'{name}' is not a valid name for a" in medssl("plugins", "new", name, *kind, "--out", tmp_path, code=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import does_not_exist\n", "failed to load (ModuleNotFoundError"),
        (
            "import medssl\n@medssl.hookimpl\ndef medssl_pretext_task(): return []\n",
            "Did you mean 'medssl_pretext_tasks'",
        ),
        (f"{HOOK}medssl_pretext_tasks(): return []\n", "returns no class"),
    ],
)
def test_check_reports_file_that_does_not_load(tmp_path, text, sentence):
    path = tmp_path / "task.py"
    path.write_text(text)
    output = medssl("plugins", "check", path, code=1)
    assert "✗ The file loads" in output
    assert sentence in output


@pytest.mark.usefixtures("without_the_second_process")
def test_check_continues_after_failed_check(tmp_path):
    medssl("plugins", "new", "mine", "--out", tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(path.read_text().replace("masked_fill(", "masked_fill_("))
    lines = {line["title"]: line["problem"] for line in json.loads(medssl("plugins", "check", path, "--json", code=1))}
    assert "in place" in lines["`forward` writes to none of its views."]
    assert sum(problem is None for problem in lines.values()) >= 10


@pytest.mark.usefixtures("without_the_second_process")
@pytest.mark.parametrize(
    ("place", "end", "sentence"),
    [
        ("    return [Mine]", "    raise SystemExit(0)", "medssl_pretext_tasks of mine.py"),
        (
            '        scan, hidden = views["scan"]',
            "        raise SystemExit(0)\n{}",
            "it ends the process (SystemExit: 0)",
        ),
        ('        scan, hidden = views["scan"]', "        import os; os._exit(0)\n{}", "SystemExit: os._exit(0)"),
        (
            "        mask_ratio: float",
            "        odd: int = medssl.Field(default_factory=exit)\n{}",
            "mine.py ends the process",
        ),
    ],
    ids=["in the hook", "in forward", "without cleaning up", "in a setting"],
)
def test_check_fails_plugin_that_exits(tmp_path, place, end, sentence):
    medssl("plugins", "new", "mine", "--out", tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(path.read_text().replace(place, end.format(place)))
    assert sentence in medssl("plugins", "check", path, code=1)


@pytest.mark.usefixtures("without_the_second_process")
def test_check_takes_task_settings(tmp_path):
    medssl("plugins", "new", "mine", "--out", tmp_path)
    path = tmp_path / "mine.py"
    assert "did you mean 'task.mask_ratio'" in medssl("plugins", "check", path, "--set", "mask_raito=0.3", code=2)
    assert "16 of 16" in medssl("plugins", "check", path, "--set", "mask_ratio=0.3")


@pytest.mark.usefixtures("without_the_second_process")
def test_check_covers_metadata_of_installed_plugin(install):
    site = install("medssl-p1", {"entry-name": task_source("entry-name")})
    metadata = site / "medssl_p1-0.1.dist-info" / "METADATA"
    metadata.write_text(f"{metadata.read_text()}Requires-Dist: medssl>=7\n")
    output = medssl("plugins", "check", "entry-name", code=1)
    assert "✓ The plugin loads" in output
    assert "medssl-p1 needs medssl>=7" in output
    assert "✓ The entry point has the name of its task." in output


def test_check_suggests_nearest_name():
    assert "Did you mean 'simclr'?" in medssl("plugins", "check", "simcr", code=2)


def test_new_encoder_passes_every_check(tmp_path):
    output = medssl("plugins", "new", "plain-cubes", "--encoder", "--out", tmp_path)
    project = tmp_path / "medssl-plain-cubes"
    assert f"wrote {project}" in output
    facts = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert facts["entry-points"]["medssl.encoders"] == {"plain-cubes": "medssl_plain_cubes"}
    assert "--encoder plain-cubes" in (project / "README.md").read_text()
    assert "${" not in "".join(path.read_text() for path in project.rglob("*") if path.is_file())
    ast.parse((project / "tests" / "test_plain_cubes.py").read_text())
    checked = medssl("plugins", "check", project / "medssl_plain_cubes.py")
    assert "10 of 10 checks passed." in checked
    assert "There is an encoder 'vit' already" in medssl(
        "plugins", "new", "vit", "--encoder", "--out", tmp_path, code=2
    )


def test_check_reports_encoder_that_breaks_rule(tmp_path):
    medssl("plugins", "new", "mine", "--encoder", "--out", tmp_path)
    path = tmp_path / "medssl-mine" / "medssl_mine.py"
    path.write_text(path.read_text().replace("InstanceNorm3d(outputs, affine=True)", "BatchNorm3d(outputs)"))
    output = medssl("plugins", "check", path, "--set", "width=4", code=1)
    assert "depend on the rest of the batch (BatchNorm3d)" in output
