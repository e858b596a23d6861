"""Settings as people read them: rows and commented YAML; and that every setting says what it is."""

import pytest
from pydantic import BaseModel

from medssl.config import FinetuneConfig, PretrainConfig, explained_yaml, load_config, setting_rows
from medssl.config.yaml_text import parse_yaml
from medssl.errors import ConfigError

MODELS = (PretrainConfig, FinetuneConfig)


@pytest.mark.parametrize("model", MODELS)
def test_settings_have_meanings_and_bounds(model: type[BaseModel]):
    for row in setting_rows(model):
        assert row.meaning, f"{row.key} has no description"
        if row.kind in ("number", "whole number"):
            assert row.bounds, f"{row.key} has no bounds"


@pytest.mark.parametrize("model", MODELS)
def test_defaults_are_within_bounds(model: type[BaseModel]):
    load_config(
        model, flags={"cohort": "x", **({"task.name": "t"} if model is PretrainConfig else {"init": "scratch"})}
    )


def test_explained_yaml_is_a_configuration_once_completed():
    text = explained_yaml(PretrainConfig, settings=["optim.lr=3e-4"])
    assert "# cohort:" in text
    assert "[--set optim.lr=3e-4, default 0.001]" in text
    tree = parse_yaml(text, source="show") | {"cohort": "x", "task": "simclr"}
    assert PretrainConfig.model_validate(tree) == load_config(
        PretrainConfig, settings=["optim.lr=3e-4", "cohort=x", "task=simclr"]
    )


def test_explained_yaml_refuses_wrong_settings():
    with pytest.raises(ConfigError, match=r"optim\.lr: input should be greater than 0"):
        explained_yaml(PretrainConfig, settings=["optim.lr=-1"])
    with pytest.raises(ConfigError, match=r"task: needs the name"):
        explained_yaml(PretrainConfig, settings=["task.ratio=1"])


def test_settings_cannot_be_changed_afterwards():
    config = load_config(PretrainConfig, flags={"cohort": "x", "task.name": "t"})
    with pytest.raises(ValueError, match="frozen"):
        config.loop.steps = 5


def test_setting_rows_say_kind_default_bounds():
    rows = {row.key: row for row in setting_rows(FinetuneConfig)}
    assert (rows["optim.lr"].kind, rows["optim.lr"].default, rows["optim.lr"].bounds) == (
        "number",
        "0.001",
        "> 0, <= 10",
    )
    assert rows["cohort"].default == "required"
    assert rows["num_labelled"].kind == "whole number >= 1 | 'all'"
    assert rows["patch"].kind == "[whole number >= 1, whole number >= 1, whole number >= 1] | 'auto'"
