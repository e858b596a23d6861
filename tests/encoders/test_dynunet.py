"""The dynunet encoder and its decoder are MONAI's DynUNet, cut in two."""

import pytest
import torch
from monai.networks.nets import DynUNet

from medssl.encoders.build import build_encoder, check_patch, describe
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.sizing import preset_for_device
from medssl.encoders.topology import plan_levels
from medssl.errors import ConfigError

PATCH = (16, 24, 32)
SMALL = {"filters": (4, 6, 8)}


def small_network(out_channels=3, in_channels=1, **options):
    torch.manual_seed(0)
    encoder = build_encoder(
        describe("dynunet", preset="tiny", options=SMALL | options, patch=PATCH, in_channels=in_channels)
    )
    return SegmentationNetwork(encoder, encoder.make_decoder(out_channels))


def monai_twin(network):
    """DynUNet by its public constructor, written out by hand, with the weights of `network`."""
    options = network.encoder.description.options
    twin = DynUNet(
        spatial_dims=3,
        in_channels=network.encoder.description.in_channels,
        out_channels=network.decoder.out_channels,
        kernel_size=options["kernel_size"],
        strides=options["strides"],
        upsample_kernel_size=options["strides"][1:],
        filters=options["filters"],
        res_block=False,
        trans_bias=True,
    )
    weights = network.encoder.state_dict() | network.decoder.state_dict()
    missing, unexpected = twin.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("skip_layers.") for name in missing)
    return twin


@pytest.mark.parametrize(
    "options", [{}, {"strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)), "kernel_size": ((1, 3, 3), (1, 3, 3), (3, 3, 3))}]
)
def test_dynunet_equals_monai_network(options):
    network = small_network(in_channels=2, **options)
    image = torch.randn(2, 2, *PATCH)
    for mode in (True, False):
        twin = monai_twin(network).train(mode)
        assert torch.equal(network.train(mode)(image), twin(image))


def test_dynunet_gradient_equals_that_of_monai():
    network = small_network()
    twin = monai_twin(network)
    image = torch.randn(2, 1, *PATCH)
    network(image).square().mean().backward()
    twin(image).square().mean().backward()
    theirs = dict(twin.named_parameters(remove_duplicate=False))
    for part in (network.encoder, network.decoder):
        for name, parameter in part.named_parameters():
            assert torch.equal(parameter.grad, theirs[name].grad), name


def test_dynunet_is_initialised_as_in_monai():
    torch.manual_seed(3)
    network = small_network()
    weight = network.encoder.bottleneck.conv2.conv.weight  # He normal with slope 0.01 over 8 * 27 inputs
    assert weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (8 * 27)) ** 0.5, rel=0.05)
    assert network.decoder.upsamples[0].transp_conv.conv.bias.abs().max() == 0


def test_dynunet_pyramid_has_stated_channels_and_strides():
    encoder = build_encoder(describe("dynunet", preset="tiny", patch=(32, 48, 16), spacing_mm=(1.0, 1.0, 3.0)))
    pyramid = encoder(torch.randn(2, 1, 32, 48, 16))
    assert [level.shape[1] for level in pyramid] == list(encoder.channels)
    for level, stride in zip(pyramid, encoder.strides, strict=True):
        assert tuple(level.shape[2:]) == tuple(edge // step for edge, step in zip((32, 48, 16), stride, strict=True))
    assert encoder.divisor == encoder.strides[-1]
    names = {name.split(".")[0] for name in encoder.state_dict()}
    assert names == {"input_block", "downsamples", "bottleneck"}
    assert {name.split(".")[0] for name in encoder.make_decoder(2).state_dict()} == {"upsamples", "output_block"}


def test_dynunet_channels_last_and_bfloat16_agree():
    network = small_network().eval()
    image = torch.randn(2, 1, *PATCH)
    with torch.no_grad():
        expected = network(image)
        last = network.to(memory_format=torch.channels_last_3d)(image.to(memory_format=torch.channels_last_3d))
        torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            low = network(image)
    assert low.dtype == torch.bfloat16
    assert (low.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_dynunet_weights_depend_on_seed_alone():
    one, other = small_network(), small_network()
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("patch", "spacing_mm", "most", "strides", "kernels"),
    [
        ((32, 48, 32), None, 4, [(1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)], [(3, 3, 3)] * 4),
        # The next four are plans that nnU-Net v2 printed for real datasets (3d_fullres and 3d_lowres).
        (
            (40, 96, 96),
            (3.30000019, 0.78125, 0.78125),
            6,
            [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)],
            [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)],
        ),
        (
            (48, 192, 160),
            (3.299999952316284, 0.78125, 0.78125),
            6,
            [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)],
            [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)],
        ),
        ((112, 160, 128), (2.2879, 1.8008, 1.8008), 6, [(1, 1, 1)] + [(2, 2, 2)] * 4 + [(1, 2, 2)], [(3, 3, 3)] * 6),
        ((256, 96, 96), (1.2299, 1.2299, 1.2299), 6, [(1, 1, 1)] + [(2, 2, 2)] * 4 + [(2, 1, 1)], [(3, 3, 3)] * 6),
        ((128, 128, 128), (1.0, 1.0, 1.0), 6, [(1, 1, 1)] + [(2, 2, 2)] * 5, [(3, 3, 3)] * 6),
        ((8, 64, 64), None, 4, [(1, 1, 1), (2, 2, 2), (1, 2, 2), (1, 2, 2)], [(3, 3, 3)] * 4),
    ],
)
def test_dynunet_levels_follow_patch_and_spacing(patch, spacing_mm, most, strides, kernels):
    topology = plan_levels(patch, spacing_mm=spacing_mm, max_levels=most)
    assert list(topology.strides) == strides
    assert list(topology.kernel_size) == kernels
    assert min(topology.smallest_edges_voxels) >= 4


def test_describe_explains_tiny_preset_on_cpu():
    reasons: list[str] = []
    description = describe("dynunet", patch=(32, 48, 32), explain=reasons.append)
    if not torch.cuda.is_available():
        assert description.options["filters"] == [8, 16, 32, 64]
        assert "no GPU" in " ".join(reasons)
    assert preset_for_device(6 * 2**30)[0] == "small"
    assert preset_for_device(16 * 2**30)[0] == "base"
    assert preset_for_device(80 * 2**30)[0] == "large"


def test_dynunet_refuses_patch_that_does_not_fit():
    with pytest.raises(ConfigError, match=r"edge H = 35 .* patch \[32, 32, 32\]"):
        describe("dynunet", preset="tiny", patch=(32, 35, 32))
    with pytest.raises(ConfigError, match="carries 2 resolution"):
        describe("dynunet", preset="tiny", patch=(8, 8, 8))
    encoder = build_encoder(describe("dynunet", preset="tiny", patch=(32, 48, 32)))
    with pytest.raises(ConfigError, match=r"multiples of \[8, 8, 8\]. The nearest that fits is \[32, 48, 32\]"):
        check_patch(encoder, (33, 48, 32))
    with pytest.raises(ConfigError, match="one voxel at the coarsest level"):
        check_patch(encoder, (8, 8, 8))
    check_patch(encoder, (16, 8, 8))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"filtres": [4, 8, 16]}, r"encoder.options.filtres: no such setting; did you mean 'encoder.options.filters'"),
        ({"filters": [4, 4, 4, 4, 4]}, "names 5 levels, but a patch"),
        ({"filters": [0, 4, 8]}, "filters lie between 1 and 4096"),
        ({"filters": 4}, "encoder.options.filters: input should be a list, got 4"),
        ({"strides": [[1, 1, 1], [2, 2]]}, "encoder.options.strides"),
        ({"strides": [[2, 2, 2], [2, 2, 2], [2, 2, 2]]}, "the first level has the resolution of the image"),
        ({"strides": [[1, 1, 1], [9, 2, 2], [2, 2, 2]]}, "strides lie between 1 and 4"),
        ({"strides": [[1, 1, 1], [4, 2, 2], [2, 2, 2]]}, "a stride above 2 needs a kernel at least as long"),
        ({"kernel_size": [[2, 3, 3]] * 3, "filters": [4, 8, 8]}, "edges of kernel_size are 1, 3, 5 or 7"),
        ({"kernel_size": [[3, 3, 3]] * 4, "filters": [4, 8, 8]}, "entries per level differ"),
        ({"dropout": 2.0}, "encoder.options.dropout: input should be less than 1"),
    ],
)
def test_dynunet_options_are_checked(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        describe("dynunet", preset="tiny", options=options, patch=PATCH)


def test_describe_checks_number_of_channels():
    with pytest.raises(ConfigError, match="in_channels of encoder 'dynunet' is 0"):
        describe("dynunet", preset="tiny", patch=PATCH, in_channels=0)
