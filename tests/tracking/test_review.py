"""The review page says what the numbers say, shows the pictures, and needs nothing but itself."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from medssl.downstream.comparison import Comparison, Score, compare
from medssl.downstream.dice import CaseScore
from medssl.downstream.sweep import write_results
from medssl.errors import DataError, UsageError
from medssl.runs.run import Run
from medssl.tracking.answer import read_answer
from medssl.tracking.conclusion import cautions, conclusion, conclusion_card
from medssl.tracking.review import write_review
from medssl_cli.commands.review import review


def score(init: str, num_labelled: int, seed: int, scan: str, dice: dict[int, float | None], alarms=()) -> Score:
    return Score(init, num_labelled, seed, CaseScore(scan, dice, alarms))


def evidence_folder(folder: Path, *, gains: dict[int, float], seeds: int = 3, noise: float = 0.0) -> Path:
    draw = np.random.default_rng(0)
    scores = [
        score(init, count, seed, f"case{case:02d}", {1: 0.6 + extra, 2: 0.5 + extra + draw.normal(0, noise)})
        for count, gain in gains.items()
        for seed in range(seeds)
        for case in range(24)
        for init, extra in (("scratch", 0.0), ("masked", gain))
    ]
    folder.mkdir(exist_ok=True)
    write_results(folder, compare(scores))
    return folder


def test_conclusion_names_gain_above_zero(tmp_path):
    evidence = Comparison.read(evidence_folder(tmp_path, gains={3: 0.04, 5: 0.0}))
    assert (
        conclusion(evidence)
        == "masked beats scratch: +4.0 Dice points with 3 labelled scans (95 % interval +4.0 to +4.0)."
    )
    assert any(
        "5 labelled scans: the 95 % interval of the gain contains zero" in caution for caution in cautions(evidence)
    )


@pytest.mark.parametrize(("seeds", "few"), [(3, True), (5, True), (6, False)])
def test_cautions_name_fewer_than_six_seeds(tmp_path, seeds, few):
    found = cautions(Comparison.read(evidence_folder(tmp_path, gains={3: 0.04}, seeds=seeds)))
    assert any(f"{seeds} seeds only: the intervals are too narrow" in caution for caution in found) == few


def test_conclusion_calls_noise_no_gain(tmp_path):
    evidence = Comparison.read(evidence_folder(tmp_path, gains={3: 0.001}, noise=0.1))
    assert "shows no gain" in conclusion(evidence)


def test_conclusion_names_loss(tmp_path):
    assert "worse than scratch: -3.0 Dice points" in conclusion(
        Comparison.read(evidence_folder(tmp_path, gains={3: -0.03}))
    )


def test_cautions_name_class_never_learned(tmp_path):
    scores = [score(i, 3, 0, c, {1: 0.8, 2: 0.0}) for i in ("scratch", "masked") for c in "ab"]
    write_results(tmp_path, compare(scores))
    found = "\n".join(cautions(Comparison.read(tmp_path)))
    assert "Class 2 was never learned from scratch" in found
    assert "1 seeds only" in found
    assert "--seeds 6 or more" in found
    assert "2 test scans only" in found


def test_cautions_name_false_alarms_and_absent_class(tmp_path):
    scores = [
        score(init, 3, 0, case, {1: 0.8, 2: None, 3: None}, alarms)
        for init, alarms in (("scratch", ()), ("masked", (2,)))
        for case in "ab"
    ]
    write_results(tmp_path, compare(scores))
    found = "\n".join(cautions(Comparison.read(tmp_path)))
    assert "masked with 3 labelled scans: 2 of 4 false alarms, 0 from scratch" in found
    assert "Class 3 is in no test scan" in found
    page = write_review(tmp_path).read_text()
    assert "<th>false alarms</th>" in page
    assert "<td>2 of 4</td>" in page
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert "NaN" not in (tmp_path / "label_efficiency.json").read_text()


def test_page_is_self_contained_and_anonymous(tmp_path):
    folder = evidence_folder(tmp_path / "evidence", gains={3: 0.04})
    run = Run.create(
        folder / "runs" / "masked-n3-s0",
        kind="finetune",
        config={"cohort": "/hospital/DOE_JOHN", "num_labelled": 3, "init": "/hospital/DOE_JOHN/run"},
        metadata={"patch": [8, 8, 8]},
    )
    run.log(1, {"train/loss": 2.0})
    run.picture("views", 1, np.full((8, 8, 3), 7, np.uint8))
    run.finish("finished")
    page = write_review(folder).read_text()
    assert "masked beats scratch" in page
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "http" not in page
    assert "DOE_JOHN" not in page


def test_run_page_shows_curves_pictures_and_status(tmp_path):
    run = Run.create(tmp_path / "run", kind="pretrain", config={}, metadata={"task": "masked-volume"})
    for step in range(1, 2001):
        run.log(step, {"train/loss": 1 / step})
    for step in range(1, 31):
        run.picture("views", step, np.full((8, 8, 3), step, np.uint8))
    run.finish("failed", reason="OutOfMemoryError")
    page = write_review(run.folder).read_text()
    assert "failed (OutOfMemoryError)" in page
    assert page.count("data:image/png;base64,") == 12
    assert 'data-step="1"' in page
    assert 'data-step="30"' in page
    (points,) = re.findall(r'<polyline class="c0" points="([^"]+)"', page)
    assert len(points.split()) <= 501


def test_page_escapes_text_of_run(tmp_path):
    run = Run.create(tmp_path / "run", kind="pretrain", config={}, metadata={"task": "<script>alert(1)</script>"})
    run.finish("finished")
    assert "<script>alert(1)" not in write_review(run.folder).read_text()


def test_conclusion_card_is_markdown(tmp_path):
    card = conclusion_card(Comparison.read(evidence_folder(tmp_path, gains={3: 0.04})))
    assert card.startswith("**masked beats scratch")
    assert "| 3 | masked | 59.0 | 59.0 to 59.0 | +4.0 | +4.0 to +4.0 |" in card


def test_review_names_unknown_and_damaged_folders(tmp_path):
    with pytest.raises(UsageError, match="neither a run nor"):
        write_review(tmp_path)
    (tmp_path / "label_efficiency.json").write_text('{"format": 2, "rows": []}')
    with pytest.raises(DataError, match="cannot be read"):
        write_review(tmp_path)


def test_chart_leaves_out_nan(tmp_path):
    folder = evidence_folder(tmp_path, gains={3: 0.04, 5: 0.0})
    content = json.loads((folder / "label_efficiency.json").read_text())
    for line in content["rows"]:
        if line["num_labelled"] == 3:
            line["dice"] = dict.fromkeys(("mean", "low", "high"), float("nan"))
    (folder / "label_efficiency.json").write_text(json.dumps(content))
    page = write_review(folder).read_text()
    assert "masked, 5 labelled scans" in page
    assert "masked, 3 labelled scans" not in page
    content["rows"] = [line for line in content["rows"] if line["num_labelled"] == 3]
    (folder / "label_efficiency.json").write_text(json.dumps(content))
    assert "nan" in write_review(folder).read_text()


def test_answer_is_kept_beside_comparison(tmp_path):
    folder = evidence_folder(tmp_path, gains={3: 0.04})
    review(folder, accept=True, reject=False, note=None)
    review(folder, accept=False, reject=False, note="good enough for the <lung>")
    assert read_answer(folder) == {"review": "accepted", "reviewer_note": "good enough for the <lung>"}
    assert "good enough for the &lt;lung&gt;" in (folder / "review.html").read_text()
