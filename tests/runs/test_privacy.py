"""One rule for what could be a path: for the record of a resume and for MLflow."""

import pytest

from medssl.runs.privacy import could_be_path, flat_settings, is_private
from medssl.runs.resuming import changed_settings


def test_flat_settings_joins_keys_with_dots():
    assert flat_settings({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "a.c": {}, "d": [1, 2]}


@pytest.mark.parametrize("value", ["a/b", "C:\\a", "~doe", ["x", "~doe"], {"x": ["a/b"]}, {"a/b": 1}])
def test_could_be_path_looks_inside_values(value):
    assert could_be_path(value)


@pytest.mark.parametrize("value", ["masked-volume 0.6", 3, None, [1.5, "x"], {"x": "y"}])
def test_could_be_path_passes_plain_values(value):
    assert not could_be_path(value)


def test_is_private_knows_settings_by_their_meaning():
    assert is_private("cohort", "DOE_JOHN")
    assert not is_private("task.name", "DOE_JOHN")


def test_changed_settings_hides_paths():
    before = {"cohort": "DOE_JOHN", "task": {"file": "~doe"}, "optim": {"lr": 1.0}}
    after = {"cohort": "other", "task": {"file": "x"}, "optim": {"lr": 2.0}, "loop": {"steps": 3}}
    expected = {"cohort": "a path", "task.file": "a path", "optim.lr": 1.0, "loop.steps": None}
    assert changed_settings(before, after) == expected
