"""Two cohorts, or two states of one: what came, went and changed, counted by hand."""

import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner
from written_dicom import Series, random_voxels

from medssl.cohort.difference import compare_manifests
from medssl.cohort.manifest import ManifestRow
from medssl_cli.main import app


def row(scan: str, **changes) -> ManifestRow:
    facts = {
        "scan_id": scan, "series_id": f"series-{scan}", "study_id": "study", "patient_id": f"patient-{scan}",
        "modality": "CT", "body_part": "unknown", "manufacturer": "other", "model": "other", "status": "accepted",
        "reason": None, "flags": (), "shape": (4, 5, 6), "spacing_mm": (1.0, 1.0, 1.0),
        "affine_ras_mm": tuple(map(float, range(16))), "n_files": 6, "n_volumes": 1, "split": "train",
        "content_hash": f"hash-{scan}", "labels": (),
    }  # fmt: skip
    return ManifestRow(**facts | changes)


def rejected(scan: str, reason: str) -> ManifestRow:
    return row(scan, status="rejected", reason=reason, shape=None, spacing_mm=None, affine_ras_mm=None)


def test_difference_ignores_row_order():
    rows = [row("a"), row("b"), rejected("c", "DERIVED")]
    found = compare_manifests(rows, rows[::-1])
    assert found.same
    assert (found.accepted, found.patients, found.crossing) == ((2, 2), (2, 2, 2), ())


def test_difference_names_added_lost_and_changed():
    before = [row("a"), row("b"), row("c"), row("d"), row("e"), rejected("x", "DERIVED")]
    after = [
        row("a", flags=("F_TILT",), content_hash="other"),
        row("b", split="test", shape=(4, 5, 7)),
        rejected("c", "TIMEOUT"),
        row("e"),
        row("f"),
        row("x"),
    ]
    found = compare_manifests(before, after)
    assert not found.same
    assert found.accepted == (5, 5)
    assert found.added == ("f", "x")
    assert found.lost == {"c": "TIMEOUT", "d": "absent"}
    assert found.changed == {"voxels": ("a",), "geometry": ("b",), "split": ("b",), "flags": ("a",)}
    assert found.reasons == {"DERIVED": (1, 0), "TIMEOUT": (0, 1)}
    assert found.patients == (5, 5, 3)
    assert found.crossing == ("patient-b",)


def test_difference_finds_patients_that_cross_splits():
    found = compare_manifests([row("a", patient_id="p")], [row("b", patient_id="p", split="test")])
    assert found.crossing == ("p",)


def test_difference_counts_rejected_parts_only():
    before, after = [rejected("x", "DERIVED")], [replace(rejected("x", "DERIVED"), scan_id="y")]
    assert compare_manifests(before, after).same


@pytest.fixture
def medssl(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "key"))

    def run(*words, code=0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    return run


def test_diff_command_compares_two_cohorts(tmp_path, medssl):
    root, cohort = tmp_path / "a", tmp_path / "cohort"
    Series(random_voxels((26, 22, 12))).write(root / "1")
    medssl("ingest", root, "--out", cohort, "--workers", 0)
    shutil.copy(cohort / "manifest.parquet", tmp_path / "earlier.parquet")
    Series(random_voxels((26, 22, 12), seed=1)).write(root / "2")
    medssl("ingest", root, "--out", cohort, "--workers", 0)
    shown = medssl("archive", "diff", tmp_path / "earlier.parquet", cohort).output
    assert "1 and 2 accepted scans" in shown
    assert "added: 1 (" in shown
    facts = json.loads(medssl("archive", "diff", cohort, cohort, "--json", "--exit-code").stdout)
    assert facts["added"] == []
    medssl("archive", "diff", tmp_path / "earlier.parquet", cohort, "--exit-code", code=1)
    medssl("ingest", root, "--out", tmp_path / "other", "--workers", 0, "--key-file", tmp_path / "key2")
    assert "ids cannot be compared" in medssl("archive", "diff", cohort, tmp_path / "other", code=2).output
    assert "cannot be read as a manifest" in medssl("archive", "diff", cohort, root / "1" / "IM0000", code=1).output
