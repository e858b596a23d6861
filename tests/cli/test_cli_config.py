"""`medssl config` and `medssl plugins list|show`, as a user calls them."""

import json

from command_line import medssl

from medssl.config import PretrainConfig


def test_config_check_accepts_output_of_show(tmp_path):
    text = medssl(
        "config", "show", "--set", "cohort=cohort", "--set", "task=masked-volume", "--set", "task.mask_ratio=0.7"
    )
    path = tmp_path / "pretrain.yaml"
    path.write_text(text)
    assert medssl("config", "check", path).startswith("ok: ")
    assert "task.mask_ratio" not in medssl("config", "check", path)


def test_config_check_covers_task_settings(tmp_path):
    path = tmp_path / "pretrain.yaml"
    path.write_text("cohort: x\ntask: {name: masked-volume, mask_raito: 0.5, mask_ratio: 3}\n")
    output = medssl("config", "check", path, code=2)
    assert "2 problems in the configuration:" in output
    assert f"task.mask_raito: no such setting; did you mean 'task.mask_ratio'?  ({path})" in output
    assert "task.mask_ratio: input should be less than 1, got 3" in output


def test_config_check_names_unknown_task(tmp_path):
    path = tmp_path / "pretrain.yaml"
    path.write_text("cohort: x\ntask: masked-volum\n")
    assert "Did you mean 'masked-volume'?" in medssl("config", "check", path, code=2)


def test_config_check_rejects_file_of_another_command(tmp_path):
    path = tmp_path / "finetune.yaml"
    path.write_text("cohort: x\ninit: scratch\nnum_labelled: 5\n")
    assert medssl("config", "check", "--for", "finetune", path).startswith("ok: 3 settings given")
    assert "init: no such setting" in medssl("config", "check", path, code=2)


def test_config_schema_covers_settings_and_tasks():
    assert json.loads(medssl("config", "schema")) == PretrainConfig.model_json_schema()
    assert "num_labelled" in json.loads(medssl("config", "schema", "--for", "finetune"))["properties"]
    assert "mask_ratio" in json.loads(medssl("config", "schema", "--task", "masked-volume"))["properties"]


def test_plugins_list_shows_origin():
    assert ["masked-volume", "medssl"] in [line.split()[:2] for line in medssl("plugins", "list").splitlines()]
    rows = {row["name"]: row for row in json.loads(medssl("plugins", "list", "--json", "--load"))}
    assert rows["simclr"]["status"] == "ok", rows["simclr"]["note"]
    assert rows["simclr"]["origin"].endswith("(built in)")


def test_plugins_show_lists_settings(tmp_path):
    text = medssl("plugins", "show", "masked-volume")
    assert "task.mask_ratio = 0.6  (number, > 0.0, < 1.0)" in text
    assert "Fraction of the blocks that is hidden." in text
    settings = json.loads(medssl("plugins", "show", "masked-volume", "--json"))["settings"]
    assert settings[5]["key"] == "task.mask_ratio"
    assert "Did you mean 'masked-volume'?" in medssl("plugins", "show", "masked-volumes", code=2)
