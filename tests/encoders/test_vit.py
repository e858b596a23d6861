"""The vit encoder is MONAI's ViT, with MONAI's UNETR around it; and it leaves out what is hidden."""

import warnings

import pytest
import torch
from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding
from monai.networks.nets import UNETR, ViT
from torch.utils.flop_counter import FlopCounterMode

from medssl.encoders.architectures.vit import positions_of_tokens
from medssl.encoders.build import build_encoder, check_patch, describe
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.errors import ConfigError
from medssl.pretext.sparse import DropsTokens

SIZES = {"hidden_size": 24, "mlp_dim": 32, "num_heads": 2, "feature_size": 4}
PATCH = (16, 24, 32)


def vit_of(patch=PATCH, in_channels=1, **options):
    torch.manual_seed(0)
    wanted = {**SIZES, "patch_size": 8, "num_layers": 6} | options
    return build_encoder(describe("vit", preset="tiny", options=wanted, patch=patch, in_channels=in_channels))


def hidden_tokens(counts, edge=8, patch=PATCH):
    """Voxels of so many tokens per sample, drawn at random."""
    generator = torch.Generator().manual_seed(1)
    grid = [length // edge for length in patch]
    total = grid[0] * grid[1] * grid[2]
    cells = torch.zeros(len(counts), total, dtype=torch.bool)
    for row, count in zip(cells, counts, strict=True):
        row[torch.randperm(total, generator=generator)[:count]] = True
    cells = cells.view(len(counts), 1, *grid)
    return cells.repeat_interleave(edge, 2).repeat_interleave(edge, 3).repeat_interleave(edge, 4)


def test_vit_with_16_and_12_equals_monais_unetr():
    patch = (16, 32, 48)
    encoder = vit_of(patch, in_channels=2, patch_size=16, num_layers=12)
    network = SegmentationNetwork(encoder, encoder.make_decoder(3))
    twin = UNETR(2, 3, patch, feature_size=4, hidden_size=24, mlp_dim=32, num_heads=2)
    # Strict: every key of MONAI's network is there under its own name, and no other.
    twin.load_state_dict(encoder.state_dict() | network.decoder.state_dict())
    image = torch.randn(2, 2, *patch)
    ours, theirs = network(image), twin(image)
    assert torch.allclose(ours, theirs, atol=1e-4)
    ours.square().mean().backward()
    theirs.square().mean().backward()
    gradients = dict(twin.named_parameters())
    for part in (encoder, network.decoder):
        for name, weight in part.named_parameters():
            if weight.requires_grad:
                assert torch.allclose(weight.grad, gradients[name].grad, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("edge", [4, 8])
def test_vit_with_other_tokens_equals_monais_vit(edge):
    encoder = vit_of(patch_size=edge)
    twin = ViT(1, PATCH, edge, hidden_size=24, mlp_dim=32, num_layers=6, num_heads=2)
    twin.load_state_dict(encoder.vit.state_dict())
    image = torch.randn(2, 1, *PATCH)
    last, states = twin(image)
    levels = {4: (3,), 8: (2, 4)}[edge]
    expected = [*(states[level] for level in levels), last]
    for found, tokens in zip(encoder(image), expected, strict=True):
        assert torch.allclose(found.flatten(2).transpose(1, 2), tokens, atol=1e-5)


def test_vit_dropout_is_off_in_evaluation():
    encoder, image = vit_of(dropout_rate=0.3), torch.randn(2, 1, *PATCH)
    assert torch.equal(encoder.eval()(image)[-1], encoder(image)[-1])
    assert not torch.equal(encoder.train()(image)[-1], encoder(image)[-1])
    hidden = hidden_tokens([4, 9])
    assert torch.equal(encoder.eval().encode_visible(image, hidden)[-1], encoder.encode_visible(image, hidden)[-1])


@pytest.mark.parametrize("patch_size", [4, 8, 16])
def test_vit_pyramid_and_decoder_have_stated_sizes(patch_size):
    patch = (16, 32, 48)
    encoder = vit_of(patch, patch_size=patch_size)
    image = torch.randn(2, 1, *patch)
    pyramid = encoder(image)
    assert [tuple(level.shape[1:]) for level in pyramid] == [
        (channels, *(edge // step for edge, step in zip(patch, stride, strict=True)))
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert encoder.make_decoder(2)(pyramid, image).shape == (2, 2, *patch)


def test_positions_of_tokens_equal_monais_sincos():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.meshgrid without indexing
        expected = build_sincos_position_embedding([2, 3, 5], 24)
    assert torch.allclose(positions_of_tokens((2, 3, 5), 24), expected, atol=1e-6)


def test_vit_takes_images_of_other_sizes():
    here, there = vit_of(), vit_of(patch=(8, 32, 24))
    for name, weight in there.named_parameters():
        if "position" not in name:
            weight.data.copy_(here.get_parameter(name))
    image = torch.randn(2, 1, 8, 32, 24)
    assert torch.equal(here(image)[-1], there(image)[-1])


@pytest.mark.parametrize("counts", [(9, 9), (4, 15), (0, 23)])
def test_encode_visible_equals_loop_over_samples(counts):
    encoder, image, hidden = vit_of().double(), torch.randn(2, 1, *PATCH).double(), hidden_tokens(counts)
    found = encoder.encode_visible(image, hidden)
    for sample in range(2):
        embedded = encoder.vit.patch_embedding(image[sample : sample + 1])[0]
        rows = [token for token in range(24) if not hidden[sample, 0].unflatten(0, (2, 8)).unflatten(2, (3, 8))
                .unflatten(4, (4, 8))[token // 12, 0, token // 4 % 3, 0, token % 4, 0]]  # fmt: skip
        tokens = embedded[rows][None]
        states = []
        for block in encoder.vit.blocks:
            tokens = block(tokens)
            states.append(tokens)
        for level, expected in zip(found, [states[2], states[4], encoder.vit.norm(tokens)], strict=True):
            cells = level[sample].flatten(1).T
            assert torch.allclose(cells[rows], expected[0], atol=1e-12)
            assert torch.count_nonzero(cells) == torch.count_nonzero(cells[rows])


def test_encode_visible_ignores_hidden_voxels():
    encoder, image, hidden = vit_of(), torch.randn(2, 1, *PATCH), hidden_tokens((10, 13))
    changed = torch.where(hidden, image * 3 + 5, image).requires_grad_()
    before, after = encoder.encode_visible(image, hidden), encoder.encode_visible(changed, hidden)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    sum(level.square().sum() for level in after).backward()
    assert torch.count_nonzero(changed.grad[hidden]) == 0
    assert (changed.grad[~hidden] != 0).float().mean() > 0.99


def test_encode_visible_drops_token_with_one_hidden_voxel():
    encoder, image = vit_of(), torch.randn(2, 1, *PATCH)
    hidden = torch.zeros(2, 1, *PATCH, dtype=torch.bool)
    hidden[:, :, 9, 17, 3] = True
    last = encoder.encode_visible(image, hidden)[-1]
    assert torch.count_nonzero(last[:, :, 1, 2, 0]) == 0
    assert (last.abs().sum(dim=1) == 0).sum() == 2


def test_encode_visible_with_nothing_hidden_equals_forward():
    encoder, image = vit_of(), torch.randn(2, 1, *PATCH)
    plain, visible = encoder(image), encoder.encode_visible(image, torch.zeros_like(image, dtype=torch.bool))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(plain, visible, strict=True))
    assert isinstance(encoder, DropsTokens)


def test_encode_visible_costs_a_quarter_with_three_quarters_hidden():
    encoder, image = vit_of(patch_size=4, hidden_size=96, mlp_dim=384), torch.randn(2, 1, *PATCH)

    def flops(run):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        return counter.get_total_flops()

    seen = []
    handle = encoder.vit.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    share = flops(lambda: encoder.encode_visible(image, hidden_tokens((144, 144), edge=4))) / flops(
        lambda: encoder(image)
    )
    handle.remove()
    assert seen == [48, 192]
    assert share < 0.27


def test_vit_trains_all_but_positions_and_unused_norm():
    encoder = vit_of()
    sum(level.square().mean() for level in encoder(torch.randn(2, 1, *PATCH))).backward()
    assert all(weight.grad is not None for weight in encoder.parameters() if weight.requires_grad)
    still = [name for name, weight in encoder.named_parameters() if not weight.requires_grad]
    assert all("position_embeddings" in name or "norm_cross_attn" in name for name in still)


def test_vit_initialises_qkv_as_three_matrices():
    weight = vit_of(hidden_size=96).vit.blocks[0].attn.qkv.weight
    limit = (6 / (96 + 96)) ** 0.5
    assert weight.abs().max().item() == pytest.approx(limit, rel=0.01)


@pytest.mark.parametrize(
    ("patch", "edge"),
    [((96, 96, 96), 16), ((128, 112, 64), 16), ((64, 64, 64), 8), ((32, 48, 32), 4), ((24, 160, 160), 8)],
)
def test_vit_token_size_leaves_216_tokens(patch, edge):
    assert describe("vit", preset="tiny", patch=patch).options["patch_size"] == edge


def test_vit_refuses_sizes_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"Set patch to \[32, 48, 32\]"):
        describe("vit", preset="tiny", patch=(32, 50, 32))
    with pytest.raises(ConfigError, match="not made of tokens of 16"):
        describe("vit", preset="tiny", options={"patch_size": 16}, patch=(32, 40, 32))
    with pytest.raises(ConfigError, match="num_heads = 5 does not divide"):
        describe("vit", preset="tiny", options={"num_heads": 5}, patch=PATCH)
    with pytest.raises(ConfigError, match="is not a multiple of 6"):
        describe("vit", preset="tiny", options={"hidden_size": 64, "num_heads": 2}, patch=PATCH)
    with pytest.raises(ConfigError, match=r"multiples of \[8, 8, 8\]"):
        check_patch(vit_of(), (12, 16, 16))
