"""Every measure against closed forms, naive loops and scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, ortho_group

from medssl.diagnostics.measures import (
    alignment,
    energy_gap,
    feature_std,
    lidar,
    relative_std,
    root_mean_square,
    uniformity,
)
from medssl.diagnostics.spectrum import alpha_req, eigenvalues, participation_ratio, rankme

CONSTANT = torch.ones(32, 1) * torch.linspace(-1, 3, 768)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- effective rank


def test_rankme_of_the_identity_is_its_size():
    assert rankme(torch.eye(8)) == pytest.approx(8.0, abs=1e-4)


def test_rankme_of_constant_rows_is_one():
    assert rankme(CONSTANT) == pytest.approx(1.0, abs=2e-3)  # 1.0012 at 768 channels for epsilon 1e-7


def test_rankme_of_three_equal_directions_is_three():
    features = torch.zeros(30, 16)
    features[:10, 0], features[10:20, 1], features[20:, 2] = 1.0, 1.0, 1.0
    assert rankme(features) == pytest.approx(3.0, abs=1e-4)


def test_rankme_agrees_with_its_formula_in_numpy():
    features = normal(40, 12)
    sigma = np.linalg.svd(features.double().numpy(), compute_uv=False)
    share = sigma / sigma.sum() + 1e-7
    assert rankme(features) == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-9)


def test_rankme_centred_ignores_offset():
    features = normal(2048, 64)
    assert rankme(features) == pytest.approx(63.7, abs=0.2)
    assert rankme(features + 10) == pytest.approx(12.2, abs=0.7)
    assert rankme(features + 10, centred=True) == pytest.approx(rankme(features, centred=True), rel=1e-3)


def test_rankme_of_zeros_is_zero():
    assert rankme(torch.zeros(5, 4)) == 0.0
    assert rankme(CONSTANT, centred=True) == 0.0
    assert participation_ratio(eigenvalues(CONSTANT)) == 0.0
    assert alpha_req(eigenvalues(CONSTANT)) == 0.0


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_alpha_of_power_law_is_its_exponent(exponent):
    spectrum = torch.arange(1, 65, dtype=torch.float64) ** -exponent
    assert alpha_req(spectrum) == pytest.approx(exponent, abs=1e-9)


def test_alpha_of_power_law_features():
    d = 32
    rotation = torch.from_numpy(ortho_group.rvs(d, random_state=0)).float()
    spectrum = torch.arange(1, d + 1).double() ** -1.0
    # Columns of an orthogonal matrix give exactly the covariance that is asked for.
    scores = torch.linalg.qr(normal(4 * d, d).double() - normal(4 * d, d).double().mean(0))[0]
    scores = torch.linalg.qr(torch.cat([torch.ones(4 * d, 1).double(), scores], 1))[0][:, 1:] * math.sqrt(4 * d - 1)
    features = (scores * spectrum.sqrt()) @ rotation.double()
    torch.testing.assert_close(eigenvalues(features), spectrum, rtol=1e-6, atol=1e-9)
    assert alpha_req(eigenvalues(features)) == pytest.approx(1.0, abs=1e-6)


def test_participation_ratio_counts_equal_directions():
    assert participation_ratio(torch.tensor([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert participation_ratio(torch.tensor([4.0, 2.0])) == pytest.approx(36 / 20)


# --- spread on the sphere


def test_feature_std_of_collapsed_and_isotropic():
    """0 when collapsed, 1/sqrt(F) when isotropic."""
    assert feature_std(CONSTANT) == pytest.approx(0.0, abs=1e-9)
    assert feature_std(normal(4096, 64)) == pytest.approx(1 / 8, rel=0.01)
    assert relative_std(normal(4096, 64)) == pytest.approx(1.0, rel=0.01)
    assert feature_std(torch.zeros(4, 4)) == 0.0


def test_uniformity_of_known_features():
    assert uniformity(CONSTANT) == pytest.approx(0.0, abs=1e-9)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)
    assert uniformity(torch.eye(6)) == pytest.approx(-4.0)
    assert uniformity(normal(256, 512)) == pytest.approx(-3.985, abs=0.01)


def test_uniformity_matches_loop_over_pairs():
    points = torch.nn.functional.normalize(normal(7, 3).double(), dim=1)
    terms = [math.exp(-2 * float((points[i] - points[j]).square().sum())) for i in range(7) for j in range(i)]
    assert uniformity(points.float()) == pytest.approx(math.log(sum(terms) / len(terms)), rel=1e-5)


def test_alignment_of_equal_orthogonal_opposite_pairs():
    x = torch.eye(4)
    assert alignment(x, 3 * x) == pytest.approx(0.0)
    assert alignment(x, x.roll(1, 0)) == pytest.approx(2.0)
    assert alignment(x, -x) == pytest.approx(4.0)


def test_root_mean_square():
    assert root_mean_square(torch.tensor([[3.0, -4.0]])) == pytest.approx(math.sqrt(12.5))


# --- energy


def test_energy_gap_of_separated_and_equal_energies():
    apart = energy_gap(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 4.0, 6.0]))
    assert (apart.mean, apart.auc, apart.pairs) == (3.5, 1.0, 2)
    assert energy_gap(torch.ones(3), torch.ones(5)).auc == 0.5
    assert energy_gap(torch.full((2,), 9.0), torch.zeros(2)).auc == 0.0
    with pytest.raises(ValueError, match="at least one pair"):
        energy_gap(torch.zeros(0), torch.zeros(2))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_auc_matches_scipy_mann_whitney(right, wrong):
    gap = energy_gap(torch.tensor(right).float(), torch.tensor(wrong).float())
    statistic = mannwhitneyu(wrong, right, method="asymptotic").statistic if len(set(right + wrong)) > 1 else None
    expected = 0.5 if statistic is None else statistic / (len(right) * len(wrong))
    assert gap.auc == pytest.approx(expected)


# --- LiDAR


def test_lidar_of_isotropic_groups_counts_channels():
    groups = normal(500, 1, 16) + 0.1 * normal(500, 8, 16, seed=1)
    assert lidar(groups) == pytest.approx(15.66, abs=0.25)


def test_lidar_of_a_one_dimensional_signal_is_one():
    groups = torch.zeros(300, 6, 16)
    groups[:, :, 0] += normal(300, 1)
    groups += 0.01 * normal(300, 6, 16, seed=1)
    assert lidar(groups) == pytest.approx(1.01, abs=0.05)


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-5])
def test_lidar_does_not_call_constant_features_perfect(noise):
    assert lidar(torch.ones(100, 4, 64) + noise * normal(100, 4, 64)) == 0.0


def test_lidar_does_not_call_noise_perfect():
    assert lidar(normal(200, 4, 32)) == 0.0


@pytest.mark.parametrize("channels", [12, 16, 17, 64, 320])
def test_lidar_counts_signal_directions_with_few_views(channels):
    """Sixteen scans in two views leave most of the within-scan covariance undetermined."""
    found = []
    for directions in (1, 3, 6, 10):
        signal = (
            normal(16, 1, directions) @ torch.tensor(ortho_group.rvs(channels, random_state=0)[:directions]).float()
        )
        found.append(lidar(signal + 0.02 * normal(16, 2, channels, seed=1)))
    assert found == sorted(found)
    for value, directions in zip(found, (1, 3, 6, 10), strict=True):
        assert 0.6 * directions < value < directions + 0.8  # a sample of 16 fills ten directions unevenly


def test_lidar_is_blind_to_scale():
    groups = normal(100, 1, 8) + 0.1 * normal(100, 4, 8, seed=1)
    assert lidar(groups * 1000) == pytest.approx(lidar(groups), rel=1e-5)
