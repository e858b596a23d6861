"""YAML as people mean it, and back."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medssl.config import PretrainConfig, dump_config, load_config
from medssl.config.yaml_text import dump_yaml, parse_yaml
from medssl.errors import ConfigError

TRAPS = [
    "no",
    "on",
    "yes",
    "012",
    "1e-3",
    "1_000",
    "1:30",
    "null",
    "~",
    "",
    "0x1F",
    "0o17",
    "2026-01-01",
    ".inf",
    "=",
    "<<",
]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("012", 12),
        ("-7", -7),
        ("on", "on"),
        ("no", "no"),
        ("true", True),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("'12'", "12"),
        ("[1, 2.5, auto]", [1, 2.5, "auto"]),
    ],
)
def test_yaml_scalars_follow_yaml_1_2(text, value):
    assert parse_yaml(text, source="test") == value


def test_yaml_words_for_true_and_false_reach_switch():
    for word, value in (("no", False), ("off", False), ("yes", True), ("true", True)):
        config = load_config(PretrainConfig, settings=[f"tracking.enabled={word}", "cohort=x", "task=simclr"])
        assert config.tracking.enabled is value


def test_yaml_on_reaches_setting_of_words():
    assert (
        load_config(PretrainConfig, settings=["tracking.pictures=on", "cohort=x", "task=t"]).tracking.pictures == "on"
    )


def test_yaml_repeated_key_is_an_error_with_line():
    with pytest.raises(
        ConfigError, match="test, line 3, column 1: not valid YAML \\(the key 'lr' stands there twice\\)"
    ):
        parse_yaml("lr: 1\nsteps: 2\nlr: 3\n", source="test")


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "!!python/object/apply:os.system ['true']",
        "? [1]\n: 2",
        "1: 2",
        "a: *b",
        "a: &b [*b]",
        "a: &b {c: 1}\nd: *b",
        "[" * 3000,
    ],
)
def test_yaml_refuses_what_is_not_plain(text):
    with pytest.raises(ConfigError, match=r"test.*not valid YAML"):
        parse_yaml(text, source="test")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(TRAPS)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*TRAPS[:3], "a", "b c", "#"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_dump_yaml_reads_back_the_same(tree):
    assert parse_yaml(dump_yaml(tree), source="test") == tree


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(TRAPS) | st.integers() | st.booleans() | st.none()))
def test_dump_yaml_reads_the_same_in_yaml_1_1(tree):
    assert yaml.safe_load(dump_yaml(tree)) == tree


def test_dump_config_reproduces_itself(tmp_path: Path):
    config = load_config(
        PretrainConfig,
        settings=["optim.lr=3e-5", "patch=[32, 48, 40]", "task.note=1e5", "task.word='012'", "tracking.pictures=off"],
        flags={"cohort": tmp_path, "task.name": "simclr", "splits": ("train", "val")},
    )
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    again = load_config(PretrainConfig, files=[tmp_path / "config.yaml"])
    assert again == config
    assert again.task == {"name": "simclr", "note": 100000.0, "word": "012"}
