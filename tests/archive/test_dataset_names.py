"""`--dataset NAME`: what the sources of an ingest are called in the manifest, for sampling them in proportion."""

import pytest
from written_dicom import Series, random_voxels

from medssl.cohort.cohort import Cohort
from medssl.config import SamplingConfig
from medssl.errors import ConfigError
from medssl.loading.scan_weights import scan_weights
from medssl_cli.archive_options import ingest_settings
from medssl_phantoms import make_archive


def called(cohort):
    """Patients by the name of their data set."""
    found = {}
    for row in Cohort.open(cohort).accepted():
        found.setdefault(row.dataset, set()).add(row.patient_id)
    return {name: len(patients) for name, patients in found.items()}


@pytest.fixture
def sources(tmp_path):
    """One DICOM scan in tmp_path/ct, three NIfTI scans in a folder of their own."""
    Series(random_voxels((20, 24, 9))).write(tmp_path / "ct" / "Qvortrup_Xenobia")
    nifti = make_archive(tmp_path / "made", dicom_patients=0, nifti_cases=3, shape=(24, 30, 18)).images
    return tmp_path / "ct", nifti


def test_dataset_name_is_per_source(tmp_path, run_ingest, sources):
    dicom, nifti = sources
    run_ingest(dicom, nifti)
    assert called(tmp_path / "cohort") == {"": 4}
    run_ingest(dicom, dataset="chest-ct")
    assert called(tmp_path / "cohort") == {"": 3, "chest-ct": 1}
    run_ingest(nifti, dataset="brains")
    run_ingest(dicom, nifti)  # without a name they keep theirs
    assert called(tmp_path / "cohort") == {"brains": 3, "chest-ct": 1}


def test_dataset_name_loads_nothing_again(tmp_path, run_ingest, sources):
    run_ingest(*sources)
    before = {row.scan_id: row for row in Cohort.open(tmp_path / "cohort").accepted()}
    assert run_ingest(*sources, dataset="one").n_loaded == 0
    for row in Cohort.open(tmp_path / "cohort").accepted():
        assert (row.dataset, row.content_hash, row.split) == (
            "one", before[row.scan_id].content_hash, before[row.scan_id].split
        )  # fmt: skip


def test_dataset_names_balance_and_weight_sampling(tmp_path, run_ingest, sources):
    run_ingest(sources[0], dataset="chest-ct")
    run_ingest(sources[1], dataset="brains")
    rows = Cohort.open(tmp_path / "cohort").accepted()
    weights = scan_weights(rows, SamplingConfig(balance=("dataset",), power=0.0, factors={"dataset": {"brains": 2}}))
    total = dict.fromkeys(("brains", "chest-ct"), 0.0)
    for weight, row in zip(weights, rows, strict=True):
        total[row.dataset] += weight
    assert total["brains"] == pytest.approx(2 * total["chest-ct"])


@pytest.mark.parametrize("name", ["", "a/b", "../x", "two words", "-x", "x" * 41])
def test_dataset_name_must_be_a_word(name):
    with pytest.raises(ConfigError, match="dataset"):
        ingest_settings({"dataset": name})
