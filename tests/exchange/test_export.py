"""Export as a whole: safetensors, refusals, and that nothing is left half-written."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigParser
from safetensors.torch import load_file
from small_networks import SIZES, encoder_of
from typer.testing import CliRunner

from medssl.encoders.architectures.segresnet import SegResNetEncoder
from medssl.encoders.encoder import MonaiTarget
from medssl.encoders.weights import encoder_record, load_encoder
from medssl.errors import CheckpointError, ConfigError, UsageError
from medssl.exchange.export import FORMATS, export
from medssl.exchange.trained_model import open_trained_model


@pytest.mark.parametrize("name", list(SIZES))
def test_export_safetensors_load_into_monais_class(pretrained, tmp_path, name):
    from monai.networks import nets

    run, encoder, decoder = pretrained(name)
    out = tmp_path / "out"
    done = export(run, out, form="safetensors")
    assert {"encoder.safetensors", "decoder.safetensors", "network.safetensors", "network.json"} <= set(done.files)
    facts = json.loads((out / "network.json").read_text())
    network = getattr(nets, facts["class"].rpartition(".")[2])(**facts["arguments"])
    missing, unexpected = network.load_state_dict(load_file(out / "network.safetensors"), strict=False)
    assert not unexpected
    assert all(key.startswith("skip_layers.") for key in missing)
    image = torch.randn(2, 1, *SIZES[name][1])
    with torch.no_grad():
        ours, rounding = decoder.eval()(encoder.eval()(image), image), 1e-5 if name == "vit" else 0.0
        assert torch.allclose(network.eval()(image), ours, rtol=rounding, atol=rounding)


def test_export_readme_runs(pretrained, tmp_path, monkeypatch):
    run, encoder, _ = pretrained(decoder=False)
    out = export(run, tmp_path / "out", form="safetensors").folder
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(out)
    names = {}
    exec(code.group(1), names)
    assert torch.equal(names["network"].bottleneck.conv1.conv.weight, encoder.bottleneck.conv1.conv.weight)


def test_export_is_a_start_for_fine_tuning(pretrained, tmp_path):
    run, encoder, decoder = pretrained()
    out = export(run, tmp_path / "out", form="safetensors").folder
    again, rest = load_encoder(out)
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), encoder.state_dict().values(), strict=True)
    )
    assert rest.out_channels == decoder.out_channels
    assert open_trained_model(out).metadata["task"] == "masked-volume"


def test_export_of_fine_tuned_model_keeps_labels(finetuned, tmp_path):
    run, _ = finetuned()
    out = export(run, tmp_path / "out", form="safetensors").folder
    facts = json.loads((out / "network.json").read_text())
    assert facts["label_names"] == {"0": "background", "1": "anterior", "2": "posterior"}
    assert facts["spacing_mm"] == [2.0, 1.5, 1.0]  # of D, H, W = Z, Y, X


@pytest.mark.parametrize("form", list(FORMATS))
def test_export_names_no_scan(finetuned, tmp_path, form):
    run, _ = finetuned(labelled_scans=["4f2ac0ffee"], transfer=[], init="pretrained", steps=7)
    out = export(run, tmp_path / "out", form=form).folder
    for path in out.rglob("*"):
        assert path.is_dir() or b"4f2ac0ffee" not in path.read_bytes()
    if form == "safetensors":
        facts = encoder_record(out).metadata
        assert (facts["init"], facts["steps"], facts["network"]["overlap"]) == ("pretrained", 7, 0.25)


@pytest.mark.parametrize(
    ("policy", "modalities", "expected"),
    [
        (None, ["MR"], None),
        ({"spacing_mm": {}, "other_spacing_mm": "native"}, ["MR"], None),
        ({"spacing_mm": {"CT": [1, 1, 3]}, "other_spacing_mm": "native"}, ["CT"], (3.0, 1.0, 1.0)),
        ({"spacing_mm": {"CT": [1, 1, 3]}, "other_spacing_mm": "native"}, [], None),
        ({"spacing_mm": {"CT": "native"}, "other_spacing_mm": [1, 1, 1]}, ["CT"], None),
        ({"spacing_mm": {"CT": [1, 1, 3], "MR": [1, 1, 3]}}, ["CT", "MR"], (3.0, 1.0, 1.0)),
        ({"spacing_mm": {"CT": [1, 1, 3]}, "other_spacing_mm": [1, 1, 1]}, ["CT", "MR"], None),
    ],
)
def test_trained_model_states_spacing_only_where_resampled(finetuned, policy, modalities, expected):
    run, _ = finetuned(store_policy=policy, modalities=modalities)
    assert open_trained_model(run).spacing_mm == expected


def test_bundle_refuses_modalities_of_different_spacing(finetuned, tmp_path):
    policy = {"spacing_mm": {"CT": [1, 1, 3]}, "other_spacing_mm": [1, 1, 1]}
    run, _ = finetuned(store_policy=policy, modalities=["CT", "MR"])
    with pytest.raises(ConfigError, match="resampled CT and MR to different spacings"):
        export(run, tmp_path / "bundle", form="monai-bundle")
    out = export(run, tmp_path / "plain", form="safetensors").folder
    assert json.loads((out / "network.json").read_text())["modalities"] == ["CT", "MR"]
    assert open_trained_model(out).modalities == ("CT", "MR")


def test_export_refusals_leave_nothing_behind(pretrained, tmp_path):
    run, _, _ = pretrained("segresnet")
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="no counterpart in nnU-Net"):
        export(run, out, form="nnunet")
    with pytest.raises(ConfigError, match="no export format 'nnunett'; did you mean 'nnunet'"):
        export(run, out, form="nnunett")
    with pytest.raises(UsageError, match="There is no run folder"):
        export(tmp_path / "nowhere", out, form="nnunet")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match="has not finished"):
        export(empty, out, form="nnunet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "run"]


def test_export_of_vit_unlike_unetr_is_safetensors(pretrained, finetuned, tmp_path):
    run, encoder, _ = pretrained("vit", patch_size=8)
    with pytest.raises(
        ConfigError, match="UNETR has tokens of 16 voxels and 12 blocks, and this 'vit' has tokens of 8"
    ):
        export(run, tmp_path / "bundle", form="monai-bundle")
    done = export(run, tmp_path / "plain", form="safetensors")
    assert "whoever loads the weights needs medssl" in done.notes[0]
    again, decoder = load_encoder(done.folder)
    assert again.description == encoder.description
    assert decoder is not None
    model, _ = finetuned("vit", patch=[32, 32, 48])
    with pytest.raises(ConfigError, match=r"Fine-tune with --set patch=\[16, 32, 48\]"):
        export(model, tmp_path / "bundle", form="monai-bundle")


class PluginEncoder(SegResNetEncoder):
    """An encoder as a plugin brings it: another name, and the MONAI class that it is a part of."""

    name = "plugin-net"
    monai_target = MonaiTarget("monai.networks.nets.segresnet.SegResNet", "$@network_def.convInit")


@pytest.mark.parametrize("form", ["safetensors", "monai-bundle"])
def test_export_takes_encoder_of_plugin(pretrained, tmp_path, monkeypatch, form):
    monkeypatch.setattr("medssl.plugins.load_encoder", lambda name, *, known=(): SimpleNamespace(cls=PluginEncoder))
    monkeypatch.setitem(SIZES, "plugin-net", SIZES["segresnet"])
    run, encoder, decoder = pretrained("plugin-net")
    export(run, tmp_path / "out", form=form)
    if form == "safetensors":
        network = json.loads((tmp_path / "out" / "network.json").read_text())
        assert network["class"] == "monai.networks.nets.segresnet.SegResNet"
        return
    parser = ConfigParser(json.loads((tmp_path / "out" / "configs" / "inference.json").read_text()))
    assert parser["encoder"] == "$@network_def.convInit"
    monai_network = parser.get_parsed_content("network_def").eval()
    monai_network.load_state_dict(torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True))
    image = torch.randn(1, 1, 16, 24, 32)
    with torch.no_grad():
        assert torch.equal(monai_network(image), decoder.eval()(encoder.eval()(image), image))


def test_export_leaves_taken_folder_alone(pretrained, tmp_path):
    run, _, _ = pretrained()
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(UsageError, match="is not empty"):
        export(run, out, form="safetensors")
    with pytest.raises(UsageError, match="is a file"):
        export(run, out / "mine", form="safetensors")
    assert (out / "mine").read_text() == "x"


def test_export_refuses_foreign_decoder(pretrained, tmp_path, monkeypatch):
    run, _, _ = pretrained()
    real = load_encoder(run)
    with torch.no_grad():
        real[0].input_block.norm1.weight[0] += 1.0
    monkeypatch.setattr("medssl.exchange.plain.load_encoder", lambda folder: real)
    with pytest.raises(CheckpointError, match="outputs differ"):
        export(run, tmp_path / "out", form="safetensors")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_export_command_prints_notes_files_folder(pretrained, tmp_path):
    import typer

    from medssl_cli.commands.export import export as command

    app = typer.Typer()
    app.command()(command)
    run, _, _ = pretrained(decoder=False)
    result = CliRunner().invoke(app, ["--run", str(run), "--out", str(tmp_path / "out"), "--format", "nnunet"])
    assert result.exit_code == 0, result.output
    assert "The run trained no decoder" in result.output
    assert "checkpoint_final.pth" in result.output
    assert result.output.strip().splitlines()[-1].startswith("Exported: ")


def test_export_help_names_every_format():
    import medssl_cli.commands.export as module

    assert all(form in Path(module.__file__).read_text() for form in FORMATS)


def test_encoder_of_differs_from_initialisation():
    assert encoder_of().input_block.norm1.bias.abs().max() > 0
