"""Weights that move are accounted for, tensor by tensor, and proven by the forward pass."""

import json

import pytest
import torch

from medssl.encoders.build import build_encoder, describe
from medssl.encoders.transfer import check_forward_equality, transfer
from medssl.errors import CheckpointError

PATCH = (16, 24, 32)


def encoder_of(seed=0, in_channels=1, filters=(4, 6, 8)):
    torch.manual_seed(seed)
    return build_encoder(
        describe("dynunet", preset="tiny", options={"filters": filters}, patch=PATCH, in_channels=in_channels)
    )


def test_transfer_moves_every_tensor():
    source, target = encoder_of(0), encoder_of(1)
    report = transfer(source.state_dict(), target, what="encoder")
    assert report.complete
    assert report.counts["matched"] == len(source.state_dict()) == len(report.entries)
    assert str(report) == "encoder: 18 matched"
    assert check_forward_equality(source, target, torch.randn(2, 1, *PATCH)) == 0
    assert source.training
    assert target.training


def test_transfer_copies_memory():
    source, target = encoder_of(0), encoder_of(1)
    transfer(source.state_dict(), target, what="encoder")
    with torch.no_grad():
        target.bottleneck.conv1.conv.weight.zero_()
    assert source.bottleneck.conv1.conv.weight.abs().max() > 0


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "network.encoder."])
def test_transfer_removes_and_states_common_prefix(prefix):
    source, target = encoder_of(0), encoder_of(1)
    renamed = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    report = transfer(renamed, target, what="encoder")
    assert report.complete
    assert report.prefix == prefix
    assert f"prefix '{prefix}' removed" in str(report)


def test_transfer_names_aliases_and_decoder_as_left_over():
    from monai.networks.nets import DynUNet

    encoder = encoder_of()
    options = encoder.description.options
    whole = DynUNet(
        3, 1, 2, options["kernel_size"], options["strides"], options["strides"][1:], options["filters"], trans_bias=True
    )
    report = transfer(whole.state_dict(), encoder, what="encoder")
    assert report.complete
    assert {name.split(".")[0] for name in report.names("left over")} == {"skip_layers", "upsamples", "output_block"}


def test_transfer_widens_one_channel_to_three():
    source, target = encoder_of(0), encoder_of(1, in_channels=3)
    report = transfer(source.state_dict(), target, what="encoder")
    assert report.names("reshaped") == ("input_block.conv1.conv.weight",)
    assert "1 channel repeated 3 times and divided by 3" in str(report)
    image = torch.randn(2, 1, *PATCH)
    assert check_forward_equality(source, target, image) < 1e-5
    weight = target.input_block.conv1.conv.weight
    assert torch.allclose(weight.sum(1, keepdim=True), source.input_block.conv1.conv.weight)


def test_transfer_names_mismatched_head():
    encoder = encoder_of()
    source, target = encoder.make_decoder(1), encoder.make_decoder(4)
    before = target.output_block.conv.conv.weight.clone()
    report = transfer(source.state_dict(), target, what="decoder")
    assert set(report.names("mismatched")) == {"output_block.conv.conv.weight", "output_block.conv.conv.bias"}
    assert torch.equal(target.output_block.conv.conv.weight, before)
    assert not report.complete
    shown = " ".join(str(report).split())
    assert "decoder: 16 matched, 2 mismatched" in shown
    assert "mismatched output_block.conv.conv.weight 1x4x1x1x1 -> 4x4x1x1x1 left as it was" in shown


def test_transfer_names_missing_tensors():
    source = encoder_of(0).state_dict()
    del source["bottleneck.norm2.weight"]
    report = transfer(source, encoder_of(1), what="encoder")
    assert report.names("missing") == ("bottleneck.norm2.weight",)


def test_transfer_without_match_is_an_error():
    with pytest.raises(
        CheckpointError, match=r"no tensor of the source fits the encoder: the source has 2 tensors \('a.weight' \[3\]"
    ):
        transfer({"a.weight": torch.zeros(3), "b": torch.zeros(1)}, encoder_of(), what="encoder")
    with pytest.raises(CheckpointError, match="the source has no tensors"):
        transfer({}, encoder_of(), what="encoder")


def test_transfer_report_is_plain_json():
    report = transfer(encoder_of(0).state_dict(), encoder_of(1, in_channels=2), what="encoder")
    record = json.loads(json.dumps(report.as_dict()))
    assert record["counts"] == {"matched": 17, "reshaped": 1, "mismatched": 0, "missing": 0, "left over": 0}
    assert len(record["tensors"]) == 18
    assert record["tensors"][0]["source_shape"] == [4, 1, 3, 3, 3]


def test_forward_equality_notices_one_changed_weight():
    source, target = encoder_of(0), encoder_of(1)
    transfer(source.state_dict(), target, what="encoder")
    with torch.no_grad():
        target.input_block.norm1.weight[0] += 0.01
    with pytest.raises(CheckpointError, match="outputs differ by"):
        check_forward_equality(source, target, torch.randn(2, 1, *PATCH))
    with torch.no_grad():
        target.input_block.norm1.weight[0] = float("nan")
    with pytest.raises(CheckpointError, match="outputs differ by nan"):
        check_forward_equality(source, target, torch.randn(2, 1, *PATCH))
