"""`medssl ingest --spacing --packing`: their effect on the store, and invalid values."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from medssl.cohort.cohort import Cohort
from medssl.loading.crops import Crop
from medssl.loading.loader import RegionLoader
from medssl.loading.plan import BatchPlan
from medssl.store.volumes import open_volume
from medssl_cli.main import app
from medssl_phantoms import make_archive

# MLflow's warnings: doctor checks the tracking store.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("archive"), dicom_patients=0, nifti_cases=3, shape=(24, 30, 18)).images


@pytest.fixture
def ingest(tmp_path, images, monkeypatch):
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "key"))

    def run(cohort, *options):
        asked = ["ingest", images, "--modality", "MR", "--workers", "0", "--out", tmp_path / cohort, *options]
        return CliRunner().invoke(app, list(map(str, asked)))

    return run


def scans(cohort):
    return [open_volume(cohort / "store", row.scan_id) for row in Cohort.open(cohort).accepted()]


def test_packing_does_not_change_batches(ingest, tmp_path):
    assert ingest("packed").exit_code == ingest("flat", "--packing", "none").exit_code == 0
    assert {scan.packing for scan in scans(tmp_path / "flat")} == {"none"}
    crop = Crop(size=(10, 12, 14), rotation_deg=(20.0,) * 3, zoom=(0.8, 1.2), flip=(0.0, 0.0, 0.5))
    found = []
    for cohort in ("packed", "flat"):
        plan = BatchPlan(scans(tmp_path / cohort), {"patch": crop}, batch_size=2, seed=3)
        with RegionLoader(plan, workers=1, first_step=0) as loader:
            batch = next(iter(loader))
            found.append((batch.scan_ids, batch.voxels.clone()))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_flat_store_is_verified_and_continued(ingest, tmp_path):
    assert ingest("flat", "--packing", "none").exit_code == 0
    first, *_ = sorted((tmp_path / "flat" / "store").glob("*.safetensors"))
    whole = first.read_bytes()
    first.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    checked = CliRunner().invoke(app, ["doctor", "--cohort", str(tmp_path / "flat")])
    assert "the checksum differs" in checked.output
    first.unlink()
    assert ingest("flat").exit_code == 0  # what the cohort settled holds without the option
    assert first.read_bytes() == whole


def test_spacing_option_sets_stored_spacing(ingest, tmp_path):
    assert ingest("coarse", "--spacing", "2,2,3", "--spacing", "CT=5,5,5").exit_code == 0
    for scan in scans(tmp_path / "coarse"):
        assert np.allclose(scan.spacing_mm, (3.0, 2.0, 2.0))
    assert ingest("named", "--spacing", "mr=2,2,2", "--spacing", "native").exit_code == 0
    for scan in scans(tmp_path / "named"):
        assert np.allclose(scan.spacing_mm, (2.0, 2.0, 2.0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--packing", "zip"], ["--packing is 'zip'", "lz4 or none"]),
        (["--spacing", "1,1"], ["--spacing 1,1 cannot be read", "--spacing CT=1.5,1.5,2"]),
        (["--spacing", "0,1,1"], ["between 0.05 and 50"]),
        (["--spacing", "CT=wide"], ["--spacing CT=wide"]),
    ],
)
def test_invalid_store_option_is_one_sentence(ingest, tmp_path, options, words):
    result = ingest("refused", *options)
    assert result.exit_code == 2, result.output
    assert [word for word in words if word not in " ".join(result.stderr.split())] == []
    assert not (tmp_path / "refused").exists()


def test_cohort_keeps_spacing_and_packing(ingest):
    assert ingest("settled", "--spacing", "2,2,2").exit_code == 0
    for options, word in (
        (["--packing", "none"], "packing lz4, not none"),
        (["--spacing", "1,1,1"], "other_spacing_mm"),
    ):
        result = ingest("settled", *options)
        assert result.exit_code == 2
        assert word in " ".join(result.stderr.split())
    assert ingest("settled", "--spacing", "2,2,2", "--packing", "lz4").exit_code == 0
