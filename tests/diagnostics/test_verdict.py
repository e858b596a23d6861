"""Each failure has its name, and a healthy run has silence."""

import json

import pytest

from medssl.diagnostics.verdict import judge

START = {
    "loss": 2.0,
    "embedding_std": 0.8,
    "dense_std": 0.8,
    "embedding_rank_fraction": 0.9,
    "dense_rank_fraction": 0.95,
}
START |= {"dense_rms": 0.7, "pooled_rms": 0.4}


def run(*changes):
    """A history that begins healthy and changes from evaluation to evaluation."""
    return [START, *[START | change for change in changes]]


@pytest.mark.parametrize(
    ("history", "name"),
    [
        (run({"embedding_std": 0.02}), "complete collapse"),
        (run({"dense_std": 0.01}), "complete collapse"),
        (run(*[{"energy_auc": auc, "energy_pairs": 64.0} for auc in (0.8, 0.7, 0.5, 0.5)]), "complete collapse"),
        (run(*[{"energy_auc": 0.5, "energy_pairs": 64.0, "loss_over_trivial": 1.0}] * 4), "constant answer"),
        (run(*[{"loss_over_trivial": 0.99}] * 4), "constant answer"),
        # One look has few pairs, and its AUC scatters: four together tell.
        (
            run(*[{"energy_auc": a, "energy_pairs": 40.0, "loss_over_trivial": 1.1} for a in (0.58, 0.46, 0.57, 0.6)]),
            "constant answer",
        ),
        (run({"loss_over_trivial": 1e6}), "diverging loss"),
        (run({"used_atoms": 0.0}, {"used_atoms": 0.0}), "dead dictionary"),
        (run({"embedding_rank_fraction": 0.05}), "dimensional collapse"),
        (run({"dense_rank_fraction": 0.04}), "dimensional collapse"),
        (
            run(*[{"dense_rank_fraction": s, "loss": v} for s, v in ((0.5, 1.9), (0.4, 1.7), (0.3, 1.5), (0.19, 1.2))]),
            "dimensional collapse",
        ),
        # Having fallen, it does not get healthy by falling no further.
        (
            run(*[{"dense_rank_fraction": s, "loss": v} for s, v in ((0.2, 1.9), (0.15, 1.7), (0.16, 1.7))]),
            "dimensional collapse",
        ),
        (run({"teacher_entropy": 0.999}), "uniform teacher"),
        (run({"teacher_entropy": 0.3, "prototypes_used": 0.02}), "one prototype"),
        (run({"active_units": 0.01}, {"active_units": 0.01}), "posterior collapse"),
        (run({"dense_rms": 9.0}), "diverging norm"),
    ],
)
def test_verdict_names_each_failure_with_evidence(history, name):
    verdict = judge(history)
    assert verdict.name == name
    assert verdict.alarm
    assert verdict.evidence
    for evidence in verdict.evidence:
        assert history[-1][evidence.metric] == evidence.value
        assert evidence.threshold
    assert str(verdict).startswith(f"{name}: ")
    assert "/" not in str(verdict)  # what could be a path does not go to MLflow
    assert json.loads(json.dumps(verdict.as_dict()))["name"] == name


@pytest.mark.parametrize(
    "history",
    [
        run({}),
        run({"embedding_std": 0.3, "loss": 1.0}),
        # Pooled features of an untrained encoder begin near 0.03 and stay there: small, but not falling.
        [START | {"embedding_std": 0.03}, START | {"embedding_std": 0.02}],
        run(*[{"energy_auc": 0.5, "energy_pairs": 8.0}] * 3),  # too few pairs to judge
        run({"energy_auc": 0.5, "energy_pairs": 64.0}, {"energy_auc": 0.8, "energy_pairs": 64.0}),
        # A slow start: at chance for two looks, as rotation and jigsaw begin.
        run(*[{"energy_auc": 0.5, "energy_pairs": 64.0, "loss_over_trivial": 1.0}] * 2),
        run({"loss_over_trivial": 8.0}),  # the first batches of a decoder that begins anywhere
        # The pairs are told apart, although the loss is that of the trivial solution.
        run(*[{"energy_auc": 0.7, "energy_pairs": 64.0, "loss_over_trivial": 1.0}] * 6),
        run(*[{"energy_auc": auc, "energy_pairs": 32.0} for auc in (0.62, 0.76, 0.52, 0.54)]),  # one look was lucky
        run({"used_atoms": 0.01}, {"used_atoms": 0.04}),
        # Rank falls from that of random features while the loss falls: how every good training begins.
        run(*[{"dense_rank_fraction": s, "loss": v} for s, v in ((0.9, 1.9), (0.8, 1.7), (0.7, 1.5), (0.6, 1.2))]),
        run({"active_units": 0.0}, {"active_units": 0.04}),  # still waking up
        # Low for a while, and recovered; low, and the loss has not even fallen; never much higher.
        run(*[{"dense_rank_fraction": s, "loss": v} for s, v in ((0.4, 1.7), (0.15, 1.5), (0.4, 1.1))]),
        run(*[{"dense_rank_fraction": 0.15, "loss": v} for v in (2.1, 2.2)]),
        [START | {"embedding_rank_fraction": 0.4}, START | {"embedding_rank_fraction": 0.17, "loss": 1.0}],
        run({"teacher_entropy": 0.5, "prototypes_used": 0.6}),
        run({"dense_rms": 3.0}),
    ],
)
def test_verdict_of_healthy_run_is_silent(history):
    verdict = judge(history)
    assert not verdict.alarm
    assert verdict.name == "healthy"


def test_verdict_of_first_evaluation_is_no_alarm():
    verdict = judge([{"embedding_std": 0.0, "dense_rank_fraction": 0.0}])
    assert (verdict.name, verdict.alarm) == ("first evaluation", False)


def test_verdict_accepts_rising_loss_with_rising_rank():
    rising = [{"loss": 2.0 + 0.1 * i, "embedding_rank_fraction": 0.3 + 0.1 * i} for i in range(4)]
    verdict = judge(run(*rising))
    assert (verdict.name, verdict.alarm) == ("loss up, rank up", False)
    assert "expected" in verdict.sentence


def test_verdict_is_the_most_serious_failure():
    assert judge(run({"embedding_std": 0.01, "embedding_rank_fraction": 0.01})).name == "complete collapse"


def test_healthy_sentence_reports_metrics():
    sentence = judge(run({"energy_auc": 0.93, "energy_pairs": 64.0})).sentence
    assert "93%" in sentence
    assert "90% of their dimensions" in sentence


def test_verdict_ignores_absent_metrics():
    assert judge([{"loss": 1.0}, {"loss": 0.5}]).name == "healthy"
