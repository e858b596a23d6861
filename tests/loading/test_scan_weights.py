import re
from dataclasses import replace

import pytest

from medssl.cohort.manifest import ManifestRow
from medssl.config import PretrainConfig, SamplingConfig, load_config
from medssl.errors import ConfigError
from medssl.loading.scan_weights import balanced_weights, scan_weights

ROW = ManifestRow(
    scan_id="s",
    series_id="x",
    study_id="x",
    patient_id="p",
    modality="CT",
    body_part="CHEST",
    manufacturer="ACME",
    model="One",
    status="accepted",
    reason=None,
    flags=(),
    shape=None,
    spacing_mm=None,
    affine_ras_mm=None,
    n_files=1,
    n_volumes=1,
    split="train",
    content_hash=None,
    labels=(),
)


def rows(**columns: list[str]) -> list[ManifestRow]:
    return [replace(ROW, **dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def shares(found: list[float]) -> list[float]:
    return [weight / sum(found) for weight in found]


def test_scan_weights_default_is_none():
    assert scan_weights(rows(modality=["CT", "MR"]), SamplingConfig()) is None


def test_balanced_weights_lift_small_groups():
    groups = ["large"] * 90 + ["small"] * 10
    for power, share in ((1.0, 0.1), (0.0, 0.5), (0.5, 10**0.5 / (10**0.5 + 90**0.5))):
        weights = balanced_weights(groups, power=power)
        assert sum(weights[90:]) / sum(weights) == pytest.approx(share)


def test_balance_combines_several_columns():
    scans = rows(modality=["CT", "CT", "CT", "MR"], body_part=["HEAD", "CHEST", "CHEST", "HEAD"])
    found = scan_weights(scans, SamplingConfig(balance=("modality", "body_part"), power=0.0))
    assert shares(found) == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 3])


def test_factors_multiply_and_default_to_one():
    scans = rows(modality=["CT", "MR", "MR"], model=["One", "One", "Two"])
    sampling = SamplingConfig(factors={"modality": {"MR": 3.0}, "model": {"Two": 0.5}})
    assert scan_weights(scans, sampling) == pytest.approx([1.0, 3.0, 1.5])


def test_factors_reject_unknown_value_with_suggestion():
    scans = rows(body_part=["CHEST", "HEAD", "HEAD"])
    said = "sampling.factors.body_part names 'CHST', which no scan of these splits has; did you mean 'CHEST'? "
    with pytest.raises(ConfigError, match=re.escape(said + "They have 'HEAD' (2 scans), 'CHEST' (1 scans).")):
        scan_weights(scans, SamplingConfig(factors={"body_part": {"CHST": 2.0}}))


def test_factors_reject_all_zero():
    with pytest.raises(ConfigError, match="leave no scan to draw"):
        scan_weights(rows(modality=["CT", "CT"]), SamplingConfig(factors={"modality": {"CT": 0.0}}))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("sampling.balnce=[modality]", "did you mean 'sampling.balance'"),
        ("sampling.balance=[modalty]", "'modality'"),
        ("sampling.factors={modality: {CT: -1}}", "greater than or equal to 0"),
        ("sampling.factors={colour: {red: 1}}", "'modality'"),
        ("sampling.in_body=1.5", "less than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(PretrainConfig, settings=[setting], flags={"cohort": "c", "task.name": "simclr"})
