"""Scans that do not look like the others come out on top."""

import csv
import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from medssl.config import LoopConfig, PretrainConfig
from medssl.downstream.score import ranked, region_energies, score_scans, trained_task
from medssl.encoders.build import build_encoder, describe
from medssl.encoders.encoder import Encoder, EncoderDescription
from medssl.errors import CheckpointError, UsageError
from medssl.geometry import Volume
from medssl.pretext.task import PretextTask, Step
from medssl.runs.run import Run
from medssl.store.policy import StorePolicy
from medssl.store.volumes import write_volume
from medssl.training.pretrain import pretrain
from medssl_cli.commands.score import score
from medssl_tasks.masked_volume import MaskedVolume

PATCH = (8, 8, 8)


class Grain(PretextTask):
    """Energy is the roughness of a patch: neighbours along D that differ."""

    name, family = "grain", "test"

    def views(self, region):
        return {"patch": region.crop("patch")}

    def forward(self, views):
        energy = views["patch"].diff(dim=2).abs().flatten(1).mean(1)
        return Step(loss=energy.mean(), energy=energy, valid_fraction=(energy > 0).float())


class Nothing(Encoder):
    description = EncoderDescription(name="nothing")
    channels, strides = (1,), ((1, 1, 1),)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        return [image]

    def make_decoder(self, out_channels):
        raise NotImplementedError


@pytest.fixture
def ramps(tmp_path):
    """Five smooth scans and, as the third, one of noise."""
    draw = np.random.default_rng(0)
    scans = []
    for number in range(6):
        voxels = np.add.outer(np.linspace(0, 100, 14), np.linspace(0, 50, 12))[:, :, None] + np.linspace(0, 30, 10)
        voxels = voxels + draw.normal(0, 60 if number == 2 else 1, voxels.shape)
        volume = Volume(voxels.astype(np.float32), np.eye(4))
        scans.append(write_volume(tmp_path, f"scan{number}", volume, modality="MR", label=None, policy=StorePolicy()))
    return scans


def test_ranking_puts_outlier_first_and_reads_scans_equally(ramps):
    energies = region_energies(Grain(Nothing(), None), ramps, patch=PATCH, regions=3, batch_size=4)
    assert {scan: len(values) for scan, values in energies.items()} == {f"scan{n}": 3 for n in range(6)}
    ranking = ranked(energies, dict.fromkeys(energies, "MR"))
    assert ranking[0].scan_id == "scan2"
    assert ranking[0].robust_z > 3 > ranking[1].robust_z
    again = region_energies(Grain(Nothing(), None), ramps, patch=PATCH, regions=3, batch_size=4)
    assert again == energies


def test_ranking_starts_with_scans_without_anything_to_score(tmp_path):
    draw = np.random.default_rng(0)
    shape = (28, 26, 24)
    volumes = {f"scan{n}": draw.normal(100, 30, shape) for n in range(6)}
    volumes |= {"blank": np.zeros(shape), "saturated": np.full(shape, 2000.0)}
    volumes["mask"] = np.pad(np.ones((20, 26, 24)), ((4, 4), (0, 0), (0, 0)))
    scans = [
        write_volume(
            tmp_path,
            name,
            Volume(voxels.astype(np.float32), np.eye(4)),
            modality="MR",
            label=None,
            policy=StorePolicy(),
        )
        for name, voxels in volumes.items()
    ]
    torch.manual_seed(0)
    encoder = build_encoder(describe("dynunet", preset="tiny", patch=(16, 16, 16)))
    settings = MaskedVolume.Config(geometry={"probability": 0.0})
    task = MaskedVolume(encoder, settings).eval()
    energies = region_energies(task, scans, patch=(16, 16, 16), regions=4, batch_size=4)
    ranking = ranked(energies, dict.fromkeys(energies, "MR"))
    assert {scan.scan_id for scan in ranking[:3]} == {"blank", "saturated", "mask"}
    assert [(scan.valid_fraction, scan.energy, scan.robust_z) for scan in ranking[:3]] == [(0.0, None, None)] * 3
    assert all(scan.direction == "nothing to score" and scan.is_outlier for scan in ranking[:3])
    assert all(scan.valid_fraction == 1.0 for scan in ranking if scan.scan_id.startswith("scan"))


def test_ranking_ignores_regions_without_energy():
    """A scan with hardly any other region comes first."""
    nan = float("nan")
    energies = {f"s{n}": [1.0 + 0.1 * n, nan, 1.0 + 0.1 * n, 1.0] for n in range(6)}
    energies |= {"odd": [9.0, 9.0, 9.0, 9.0], "padded": [nan, nan, nan, 1.2], "void": [nan] * 4}
    ranking = ranked(energies, dict.fromkeys(energies, "MR"))
    assert [scan.scan_id for scan in ranking[:3]] == ["void", "padded", "odd"]
    assert [scan.direction for scan in ranking[:3]] == ["nothing to score", "nothing to score", "above"]
    assert ranking[1].energy == 1.2
    assert next(scan for scan in ranking if scan.scan_id == "s2").energy == pytest.approx((1.2 + 1.2 + 1.0) / 3)
    assert json.loads(json.dumps([scan.as_dict() for scan in ranking], allow_nan=False))[0]["energy"] is None


def test_ranking_treats_low_and_high_energies_alike():
    energies = {f"s{n}": [1.0 + 0.01 * n] for n in range(9)} | {"smooth": [0.2], "noisy": [1.5]}
    ranking = ranked(energies, dict.fromkeys(energies, "MR"))
    assert [(scan.scan_id, scan.direction) for scan in ranking[:2]] == [("smooth", "below"), ("noisy", "above")]
    assert [scan.is_outlier for scan in ranking[:3]] == [True, True, False]


def test_ranking_finds_outlier_among_equal_energies():
    ranking = ranked({f"s{n}": [1.0] for n in range(9)} | {"odd": [2.0]}, {})
    assert ranking[0].scan_id == "odd"
    assert ranking[0].robust_z > 3
    assert ranking[1].robust_z == 0.0


def test_robust_z_is_measured_within_a_modality():
    energies = {f"ct{n}": [1.0 + 0.01 * n] for n in range(5)} | {f"mr{n}": [9.0 + 0.1 * n] for n in range(5)}
    energies["ct_odd"] = [2.0]
    modalities = {scan: "CT" if scan.startswith("ct") else "MR" for scan in energies}
    ranking = ranked(energies, modalities)
    assert ranking[0].scan_id == "ct_odd"
    median, mad = np.median([1.0, 1.01, 1.02, 1.03, 1.04, 2.0]), 0.015
    assert ranking[0].robust_z == pytest.approx((2.0 - median) / (1.4826 * mad))


def test_robust_z_of_equal_energies_is_zero():
    assert [scan.robust_z for scan in ranked({"a": [1.0], "b": [1.0]}, {"a": "MR", "b": "MR"})] == [0.0, 0.0]


@pytest.fixture(scope="module")
def encoder_run(small_archive, tmp_path_factory):
    loop = LoopConfig(steps=2, batch_size=2, workers=0, devices=1)
    config = PretrainConfig(
        cohort=small_archive.cohort,
        task={"name": "masked-volume"},
        patch=(16, 16, 16),
        encoder={"name": "dynunet", "preset": "tiny"},
        loop=loop,
        splits=("train",),
    )
    return pretrain(config, tmp_path_factory.mktemp("runs") / "masked")


def test_score_command_ranks_a_cohort(encoder_run, small_archive, tmp_path):
    app = typer.Typer()
    app.command()(score)
    table = tmp_path / "ranking.csv"
    common = ["--run", str(encoder_run), "--cohort", str(small_archive.cohort), "--regions", "1"]
    result = CliRunner().invoke(app, [*common, "--top", "3", "--out", str(table)])
    assert result.exit_code == 0, result.output
    assert f"Ranking: {table}" in result.output
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 11
    assert "direction" in result.output
    judged = [row for row in rows if row["direction"] != "nothing to score"]
    assert judged == rows[len(rows) - len(judged) :]
    distances = [abs(float(row["robust_z"])) for row in judged]
    assert distances == sorted(distances, reverse=True)
    assert not any("case" in row["scan_id"] for row in rows)  # pseudonyms only
    as_json = CliRunner().invoke(app, [*common, "--json"])
    assert [row["scan_id"] for row in json.loads(as_json.output)] == [row["scan_id"] for row in rows]


def test_score_refuses_run_without_state(encoder_run, small_archive, tmp_path):
    Run.create(tmp_path / "fine", kind="finetune", config={}).finish("finished")
    with pytest.raises(UsageError, match="scored by a run of `medssl pretrain`"):
        score_scans(tmp_path / "fine", small_archive.cohort)
    begun = Run.create(tmp_path / "begun", kind="pretrain", config=Run.open(encoder_run).config)
    begun.finish("failed")
    with pytest.raises(CheckpointError, match="has no checkpoint to score with"):
        score_scans(tmp_path / "begun", small_archive.cohort)


def test_score_refuses_checkpoint_without_batch_norm_statistics(encoder_run, tmp_path):
    config = PretrainConfig.model_validate({**Run.open(encoder_run).config, "task": {"name": "simsiam"}})
    run = Run.open(pretrain(config, tmp_path / "simsiam"))
    state = torch.load(run.paths.checkpoint, weights_only=True)
    assert trained_task(run, config)
    state["module"] = {name: value for name, value in state["module"].items() if "moments" not in name}
    torch.save(state, run.paths.checkpoint)
    with pytest.raises(CheckpointError, match="kept no statistics of its batch norms"):
        trained_task(run, config)
