"""Nothing that could name a patient leaves the run folder, and no name of a plugin can block its mirror."""

import pytest

from medssl.runs.privacy import could_be_path
from medssl.tracking.naming import metric_name, picture_name, plain_tags, setting_params
from medssl.tracking.replay import is_sent


@pytest.mark.parametrize(
    "key", ["train/loss", "loss (kl) @ 50%", "énergie", "/a//b/", "../../etc", "a/./b", "x" * 400, "", "  "]
)
def test_metric_name_is_valid_in_mlflow(key):
    from mlflow.utils.validation import _validate_metric_name  # the rule itself, not a copy of it

    _validate_metric_name(metric_name(key))
    assert len(metric_name(key)) <= 250


def test_metric_name_keeps_valid_names():
    assert metric_name("collapse/feature_std") == "collapse/feature_std"
    assert picture_name("case-01/views") == "case-01/views"
    assert picture_name("case:01/views") == "case_01/views"


def test_setting_params_leave_out_paths():
    config = {
        "cohort": "DOE_JOHN",
        "optim": {"lr": 0.001},
        "task": {"name": "mine", "template": "/hospital/DOE_JOHN.nii"},
        "plugins": ["DOE_JOHN.py"],
        "extra": ["C:\\scans\\DOE_JOHN"],
        "home": "~doe",
    }
    assert setting_params(config) == {"optim.lr": "0.001", "task.name": "mine"}


def test_tags_hold_scalars_and_reviewer_note():
    facts = {
        "task": "mine",
        "task_origin": "/home/doe/mine.py",
        "patch": [8, 8, 8],
        "reviewer_note": "and/or",
        "scans": 4,
    }
    assert plain_tags(facts) == {"medssl.task": "mine", "medssl.reviewer_note": "and/or", "medssl.scans": "4"}


@pytest.mark.parametrize("text", ["a/b", "a\\b", "~x"])
def test_text_with_separator_could_be_path(text):
    assert could_be_path(text)
    assert not could_be_path("masked-volume 0.6")


def test_long_runs_are_thinned_out():
    kept = [number for number in range(16_000) if is_sent(number)]
    assert kept[:1000] == list(range(1000))
    assert len(kept) == 1000 + 4 * 250
