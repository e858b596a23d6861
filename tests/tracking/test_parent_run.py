"""A label-efficiency folder in MLflow: curves over the number of labelled scans, with the fine-tunings below them."""

from pathlib import Path

import pytest

from medssl.downstream.comparison import Comparison, ComparisonRow, Score
from medssl.downstream.dice import CaseScore
from medssl.downstream.intervals import Interval
from medssl.errors import UsageError
from medssl.runs.run import Run
from medssl.tracking.answer import record_answer
from medssl.tracking.client import quiet_mlflow
from medssl.tracking.sync import sync

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def write(folder: Path, counts: list[int]) -> None:
    """label_efficiency.json of two seeds and test scans: masked gains 0.04 over scratch, give or take 0.01."""
    scores = [
        Score("scratch", counts[0], seed, CaseScore(scan, {1: 0.6, 2: 0.4})) for seed, scan in ((0, "a"), (1, "b"))
    ]
    rows = [
        ComparisonRow(
            num_labelled=count,
            init=init,
            dice=Interval(mean, mean - 0.02, mean + 0.02),
            gain=gain,
            class_dice={1: mean + 0.1, 2: mean - 0.1},
            empty=0,
            false_alarms=0,
        )
        for init, mean, gain in (("scratch", 0.5, None), ("masked", 0.54, Interval(0.04, 0.03, 0.05)))
        for count in counts
    ]
    folder.mkdir(exist_ok=True)
    Comparison(tuple(rows), tuple(scores)).write(folder)


def parents_and_children(workspace: Path):
    quiet_mlflow()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{next(workspace.rglob('mlflow.db'))}")
    runs = client.search_runs([client.get_experiment_by_name("medssl").experiment_id])
    is_parent = [run.data.tags["medssl.kind"] == "label-efficiency" for run in runs]
    parents = [run for run, is_one in zip(runs, is_parent, strict=True) if is_one]
    return client, parents, [run for run, is_one in zip(runs, is_parent, strict=True) if not is_one]


def test_parent_run_has_curves_over_labelled_scans(tmp_path):
    folder = tmp_path / "evidence"
    write(folder, [3, 5])
    for name in ("scratch-n3-s0", "masked-n3-s0"):
        run = Run.create(folder / "runs" / name, kind="finetune", config={})
        run.log(1, {"train/loss": 1.0})
        run.finish("finished")
    assert sync(folder).sent > 0
    assert sync(folder).sent == 0
    client, (parent,), children = parents_and_children(tmp_path)
    curve = client.get_metric_history(parent.info.run_id, "label_efficiency/dice/masked")
    assert sorted((point.step, point.value) for point in curve) == [(3, 0.54), (5, 0.54)]
    gain = client.get_metric_history(parent.info.run_id, "label_efficiency/gain_low/masked")
    assert sorted((point.step, point.value) for point in gain) == [(3, pytest.approx(0.03)), (5, pytest.approx(0.03))]
    assert [child.data.tags["mlflow.parentRunId"] for child in children] == [parent.info.run_id] * 2
    assert parent.info.status == "FINISHED"
    assert "masked beats scratch" in parent.data.tags["mlflow.note.content"]

    record_answer(folder, review="accepted", note="holds")
    assert sync(folder).sent == 0
    tags = client.get_run(parent.info.run_id).data.tags
    assert (tags["medssl.review"], tags["medssl.reviewer_note"]) == ("accepted", "holds")

    write(folder, [3, 5, 10])
    sync(folder)
    _, (later,), children = parents_and_children(tmp_path)
    assert later.info.run_id != parent.info.run_id
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {later.info.run_id}


def test_sync_refuses_comparison_without_runs(tmp_path):
    write(tmp_path / "evidence", [3])
    with pytest.raises(UsageError, match="holds no runs"):
        sync(tmp_path / "evidence")
