"""segresnet and swin-unetr are MONAI's networks, cut in two."""

import pytest
import torch
from monai.networks.nets import SegResNet, SwinUNETR

from medssl.encoders.build import build_encoder, describe
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.errors import ConfigError

SEGRESNET = {"init_filters": 8, "blocks_down": (1, 2, 1), "blocks_up": (2, 1)}
SWIN = {"feature_size": 12, "depths": (1, 2, 1, 1), "num_heads": (3, 6, 12, 24), "window_size": 4}
CASES = {
    "segresnet": (SEGRESNET, SegResNet, (16, 24, 32), {"convInit", "down_layers"}),
    "swin-unetr": (SWIN, SwinUNETR, (32, 64, 32), {"swinViT"}),
}


@pytest.fixture(params=list(CASES))
def case(request):
    options, theirs, patch, roots = CASES[request.param]
    torch.manual_seed(1)
    encoder = build_encoder(describe(request.param, preset="tiny", options=options, patch=patch, in_channels=2))
    network = SegmentationNetwork(encoder, encoder.make_decoder(3))
    twin = theirs(spatial_dims=3, in_channels=2, out_channels=3, **options)
    # Strict: every key of MONAI's network is there under its own name, and no other.
    twin.load_state_dict(encoder.state_dict() | network.decoder.state_dict())
    return network, twin, torch.randn(2, 2, *patch), roots


def test_monai_networks_equal_those_of_monai(case):
    network, twin, image, _ = case
    for mode in (True, False):
        assert torch.equal(network.train(mode)(image), twin.train(mode)(image))


def test_monai_networks_have_stated_channels_and_strides(case):
    network, _, image, roots = case
    encoder = network.encoder
    pyramid = encoder(image)
    assert len(pyramid) == len(encoder.channels) == len(encoder.strides)
    for level, channels, stride in zip(pyramid, encoder.channels, encoder.strides, strict=True):
        assert level.shape[1] == channels
        assert tuple(level.shape[2:]) == tuple(edge // step for edge, step in zip(image.shape[2:], stride, strict=True))
    assert {name.split(".")[0] for name in encoder.state_dict()} == roots


def test_monai_networks_train_in_bfloat16_channels_last(case):
    network, _, image, _ = case
    network = network.to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image.to(memory_format=torch.channels_last_3d))
    logits.float().square().mean().backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in network.parameters())


def test_segresnet_dropout_is_off_in_evaluation():
    encoder = build_encoder(describe("segresnet", preset="tiny", options={"dropout_prob": 0.5}, patch=(16, 16, 16)))
    image = torch.randn(2, 1, 16, 16, 16)
    assert torch.equal(encoder.eval()(image)[-1], encoder(image)[-1])
    assert not torch.equal(encoder.train()(image)[-1], encoder(image)[-1])


def test_monai_networks_refuse_patch_that_does_not_fit():
    with pytest.raises(ConfigError, match=r"Set patch to \[32, 64, 32\]"):
        describe("swin-unetr", preset="tiny", patch=(32, 50, 32))
    with pytest.raises(ConfigError, match="64 voxels along at least one axis"):
        describe("swin-unetr", preset="tiny", patch=(32, 32, 32))
    with pytest.raises(ConfigError, match="can be halved 0 time"):
        describe("segresnet", preset="tiny", patch=(32, 33, 32))
    with pytest.raises(ConfigError, match="halved 2 time"):
        describe("segresnet", preset="tiny", options={"blocks_down": (1, 1, 1, 1)}, patch=(16, 32, 32))


def test_contradicting_options_are_refused():
    with pytest.raises(ConfigError, match=r"num_heads\[1\] = 5 does not divide the 24 features"):
        describe("swin-unetr", preset="tiny", options={"num_heads": (1, 5, 4, 8)}, patch=(32, 64, 32))
    with pytest.raises(ConfigError, match="blocks_up has 1 entries"):
        describe("segresnet", preset="tiny", options={"blocks_up": (1,)}, patch=(32, 32, 32))
    with pytest.raises(ConfigError, match="init_filters"):
        describe("segresnet", preset="tiny", options={"init_filters": 12}, patch=(32, 32, 32))
