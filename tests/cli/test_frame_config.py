"""`medssl config` and `medssl plugins list|show`, as a user calls them."""

import json

from typer.testing import CliRunner

from medssl.config import PretrainConfig
from medssl_cli.main import app


def medssl(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})
    assert result.exit_code == code, result.output
    return result.output


def test_show_prints_a_file_that_check_accepts_once_it_is_filled_in(tmp_path):
    text = medssl(
        "config", "show", "--set", "cohort=cohort", "--set", "task=masked-volume", "--set", "task.mask_ratio=0.7"
    )
    path = tmp_path / "pretrain.yaml"
    path.write_text(text)
    assert medssl("config", "check", path).startswith("ok: ")
    assert "task.mask_ratio" not in medssl("config", "check", path)


def test_check_finds_what_is_wrong_with_the_options_of_the_task(tmp_path):
    path = tmp_path / "pretrain.yaml"
    path.write_text("cohort: x\ntask: {name: masked-volume, mask_raito: 0.5, mask_ratio: 3}\n")
    output = medssl("config", "check", path, code=2)
    assert "2 problems in the configuration:" in output
    assert f"task.mask_raito: no such setting; did you mean 'task.mask_ratio'?  ({path})" in output
    assert "task.mask_ratio: input should be less than 1, got 3" in output


def test_check_names_a_task_that_is_not_there(tmp_path):
    path = tmp_path / "pretrain.yaml"
    path.write_text("cohort: x\ntask: masked-volum\n")
    assert "Did you mean 'masked-volume'?" in medssl("config", "check", path, code=2)


def test_a_file_for_another_command_is_refused_key_by_key(tmp_path):
    path = tmp_path / "finetune.yaml"
    path.write_text("cohort: x\ninit: scratch\nnum_labelled: 5\n")
    assert medssl("config", "check", "--for", "finetune", path).startswith("ok: 3 settings given")
    assert "init: no such setting" in medssl("config", "check", path, code=2)


def test_schema_is_the_json_schema_of_the_settings_or_of_a_task():
    assert json.loads(medssl("config", "schema")) == PretrainConfig.model_json_schema()
    assert "num_labelled" in json.loads(medssl("config", "schema", "--for", "finetune"))["properties"]
    assert "mask_ratio" in json.loads(medssl("config", "schema", "--task", "masked-volume"))["properties"]


def test_plugins_are_listed_with_their_origin_as_text_and_as_json():
    assert ["masked-volume", "medssl"] in [line.split()[:2] for line in medssl("plugins", "list").splitlines()]
    rows = {row["name"]: row for row in json.loads(medssl("plugins", "list", "--json", "--load"))}
    assert rows["simclr"]["status"] == "ok", rows["simclr"]["note"]
    assert rows["simclr"]["origin"].endswith("(built in)")


def test_a_task_is_shown_with_its_settings(tmp_path):
    text = medssl("plugins", "show", "masked-volume")
    assert "task.mask_ratio = 0.6  (number, > 0.0, < 1.0)" in text
    assert "Share of the blocks that is hidden." in text
    settings = json.loads(medssl("plugins", "show", "masked-volume", "--json"))["settings"]
    assert settings[5]["key"] == "task.mask_ratio"
    assert "Did you mean 'masked-volume'?" in medssl("plugins", "show", "masked-volumes", code=2)
