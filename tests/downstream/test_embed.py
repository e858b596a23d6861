"""One vector per scan."""

import itertools
import shutil

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from medssl.downstream.embed import embed_scans, scan_vector
from medssl.encoders.build import build_encoder, describe
from medssl.encoders.encoder import Encoder, EncoderDescription
from medssl.encoders.weights import save_encoder
from medssl.errors import CheckpointError, DataError
from medssl.geometry import Volume
from medssl.store.policy import StorePolicy
from medssl.store.volumes import write_volume
from medssl_cli.main import app

PATCH = (8, 16, 8)


class Plain(Encoder):
    """Two levels: the image, and the mean of each half along H."""

    channels, strides = (1, 1), ((1, 1, 1), (1, 1, 1))

    def __init__(self):
        super().__init__()
        self.description = EncoderDescription(name="plain")
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, image):
        return [image, 2 * image]

    def make_decoder(self, out_channels):
        raise NotImplementedError


@pytest.fixture
def encoder_folder(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "run"
    folder.mkdir()
    encoder = build_encoder(describe("dynunet", preset="tiny", patch=(16, 16, 16)))
    save_encoder(folder, encoder, metadata={"patch": [16, 16, 16]})
    return folder


def test_scan_vector_averages_windows_over_body(tmp_path):
    random = np.random.default_rng(0)
    voxels = random.integers(200, 900, (11, 20, 19)).astype(np.int16)  # (X, Y, Z): all of it is body
    scan = write_volume(tmp_path, "a", Volume(voxels, np.eye(4)), modality="MR", label=None, policy=StorePolicy())
    assert scan.body_box == ((0, 0, 0), (19, 20, 11))
    image = scan.normalised().numpy()  # (19, 20, 11)
    expected = []
    for d, h, w in itertools.product((0, 8, 11), (0, 4), (0, 3)):  # the last window ends with the scan
        window = image[d : d + 8, h : h + 16, w : w + 8]
        expected.append([window.mean(), window.max(), 2 * window.mean(), 2 * window.max()])
    found = scan_vector(Plain(), scan, patch=PATCH).numpy()
    np.testing.assert_allclose(np.sort(found), np.sort(np.mean(expected, axis=0)), rtol=1e-5)


def test_scan_vector_pads_small_scan_with_air(tmp_path):
    voxels = np.random.default_rng(0).integers(200, 900, (5, 9, 7)).astype(np.int16)
    scan = write_volume(tmp_path, "a", Volume(voxels, np.eye(4)), modality="MR", label=None, policy=StorePolicy())
    image, air = scan.normalised().numpy(), scan.normalisation.pad_value
    mean = (image.sum() + (8 * 16 * 8 - image.size) * air) / (8 * 16 * 8)
    found = scan_vector(Plain(), scan, patch=PATCH).numpy()
    np.testing.assert_allclose(np.sort(found), np.sort([mean, image.max(), 2 * mean, 2 * image.max()]), rtol=1e-5)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_embed_table_has_one_row_per_pseudonym(suffix, encoder_folder, small_archive, tmp_path):
    out = tmp_path / "new" / f"features.{suffix}"
    command = ["embed", "--run", str(encoder_folder), "--cohort", str(small_archive.cohort), "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    table = pyarrow.csv.read_csv(out) if suffix == "csv" else pyarrow.parquet.read_table(out)
    expected = embed_scans(encoder_folder, small_archive.cohort)
    assert table.column_names[:5] == ["scan_id", "patient_id", "split", "modality", "f0"]
    assert table["scan_id"].to_pylist() == [row.scan_id for row in expected.rows]
    features = np.array([table[name].to_numpy() for name in table.column_names[4:]]).T
    np.testing.assert_allclose(features, expected.vectors, rtol=1e-5)
    assert len(features) == 11
    assert np.unique(features, axis=0).shape == features.shape
    assert b"case0" not in out.read_bytes()
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "exists" in again.output


def test_embed_skips_damaged_scan(encoder_folder, small_archive, tmp_path):
    cohort = tmp_path / "cohort"
    shutil.copytree(small_archive.cohort, cohort)
    victim = sorted((cohort / "store").glob("*.b2nd"))[0]
    victim.write_bytes(victim.read_bytes()[:200])
    scan_id = victim.name.split(".")[0]
    out = tmp_path / "f.csv"
    command = ["embed", "--run", str(encoder_folder), "--cohort", str(cohort), "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert f"{scan_id}: scan {scan_id} is damaged" in done.output
    assert "10 of 11 scans" in done.output
    for path in (cohort / "store").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no scan of"):
        embed_scans(encoder_folder, cohort)


def test_embed_refuses_encoder_without_patch(encoder_folder, small_archive):
    save_encoder(encoder_folder, build_encoder(describe("dynunet", preset="tiny", patch=(16, 16, 16))), metadata={})
    with pytest.raises(CheckpointError, match="for which patch"):
        embed_scans(encoder_folder, small_archive.cohort)


@pytest.mark.parametrize("command", ["embed", "score"])
def test_unwritable_out_is_reported_before_any_work(command, encoder_folder, small_archive, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "table.csv"
    words = [command, "--run", str(encoder_folder), "--cohort", str(small_archive.cohort), "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert f"{out} cannot be written" in " ".join(done.output.split()).replace("\n", "")
