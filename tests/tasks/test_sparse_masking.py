"""Masking that keeps hidden voxels out of the encoder altogether."""

import pytest
import torch
from small_world import SHAPE, SmallEncoder, SmallRegion, phantoms, trained
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import ConfigError
from medssl.pretext.sparse import encode_sparsely, filled, visible_at
from medssl_tasks.masked_volume import MaskedVolume

CELL = 4


def blocks(seed=0, ratio=0.5):
    cells = torch.rand(2, 1, *(edge // CELL for edge in SHAPE), generator=torch.Generator().manual_seed(seed)) > ratio
    return F.interpolate(cells.float(), size=SHAPE).bool()


def task(encoder=None, **settings):
    torch.manual_seed(0)
    return MaskedVolume(encoder or SmallEncoder(), MaskedVolume.Config(masking="sparse", **settings))


def test_sparse_features_without_mask_equal_plain_encoder():
    """With nothing hidden the features are those of the plain encoder."""
    encoder, image = SmallEncoder(), phantoms()
    sparse = encode_sparsely(encoder, image, torch.ones_like(image, dtype=torch.bool))
    for found, expected in zip(sparse, encoder(image), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_sparse_features_are_zero_where_hidden():
    """Features are zero where hidden and do not depend on what is there."""
    encoder, image, visible = SmallEncoder(), phantoms(), blocks()
    pyramid = encode_sparsely(encoder, image, visible)
    other = encode_sparsely(encoder, torch.where(visible, image, 100.0), visible)
    for level, same in zip(pyramid, other, strict=True):
        hidden = ~visible_at(visible, tuple(level.shape[2:]))
        assert torch.count_nonzero(level * hidden) == 0
        assert torch.equal(level, same)


def test_sparse_norm_matches_loop_over_visible_voxels():
    """Normalisation counts visible voxels only as a loop over them does."""
    torch.manual_seed(0)
    encoder, image, visible = SmallEncoder().double(), phantoms().double(), blocks()
    first = encoder.levels[0]
    nn.init.normal_(first[1].weight)
    nn.init.normal_(first[1].bias)
    found = encode_sparsely(encoder, image, visible)[0]
    convolved = first[0](image * visible)
    for b in range(2):
        for channel in range(6):
            values = convolved[b, channel][visible[b, 0]]
            scaled = (values - values.mean()) / (values.var(unbiased=False) + first[1].eps).sqrt()
            expected = F.leaky_relu(scaled * first[1].weight[channel] + first[1].bias[channel], 0.01)
            assert torch.allclose(found[b, channel][visible[b, 0]], expected, atol=1e-10)


def test_sparse_group_norm_matches_torch():
    """Group normalisation over everything visible is that of torch."""
    encoder = SmallEncoder(channels=(6, 12, 24))
    for level, width in zip(encoder.levels, (6, 12, 24), strict=True):
        level[1] = nn.GroupNorm(3, width)
    image = phantoms()
    sparse = encode_sparsely(encoder, image, torch.ones_like(image, dtype=torch.bool))
    for found, expected in zip(sparse, encoder(image), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_sparse_encoding_leaves_encoder_unchanged():
    encoder, image = SmallEncoder(), phantoms()
    before = encoder(image)[-1]
    encode_sparsely(encoder, image, blocks())
    assert torch.equal(encoder(image)[-1], before)
    assert not any(module._forward_hooks for module in encoder.modules())


def test_hidden_cells_are_filled_with_tokens():
    """Hidden cells are filled with a learned vector per level."""
    level, visible = torch.randn(2, 3, 4, 5, 6), blocks()
    token = nn.ParameterList([torch.tensor([1.0, 2.0, 3.0])])
    out = filled([level], visible, token)[0]
    seen = visible_at(visible, (4, 5, 6)).expand_as(level)
    assert torch.equal(out[seen], level[seen])
    assert out.movedim(1, -1)[~seen[:, 0]].unique(dim=0).tolist() == [[1.0, 2.0, 3.0]]


def test_thirty_steps_beat_trivial_loss():
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    losses = trained(subject, views, 30)
    assert losses[-1] < 0.7 * subject(views).terms["trivial_loss"].item()
    assert all(token.grad.abs().max() > 0 for token in subject.tokens)


def test_blocks_are_multiples_of_the_coarsest_stride():
    encoder = SmallEncoder()
    encoder.strides = ((1, 1, 1), (1, 2, 2), (1, 8, 8))
    hidden = task(encoder).views(SmallRegion(phantoms(2, (16, 16, 16))))["hidden"]
    corners = hidden[:, :, ::4, ::8, ::8]
    assert torch.equal(hidden, F.interpolate(corners.float(), scale_factor=(4, 8, 8)).bool())
    with pytest.raises(ConfigError, match="Use block=auto, or 8"):
        task(encoder, block=4)


def test_encoder_with_attention_is_refused():
    encoder = SmallEncoder()
    encoder.levels[2].append(nn.LayerNorm(6))
    with pytest.raises(ConfigError, match=r"LayerNorm at .levels\.2\.3."):
        task(encoder)


class SmallViT(SmallEncoder):
    """One level of tokens of 4 voxels, which attend to each other."""

    def __init__(self):
        super().__init__(channels=(16,))
        self.strides = ((4, 4, 4),)
        self.levels = nn.ModuleList([nn.Conv3d(1, 16, 4, stride=4)])
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.seen = []

    def encode_visible(self, image: Tensor, hidden: Tensor) -> list[Tensor]:
        tokens = self.levels[0](image)
        visible = visible_at(~hidden, tuple(tokens.shape[2:])).flatten(1)
        rows = tokens.flatten(2).transpose(1, 2)[visible].view(len(image), -1, 16)
        self.seen.append(rows.shape)
        out = torch.zeros_like(tokens.flatten(2).transpose(1, 2))
        out[visible] = self.attention(rows, rows, rows)[0].flatten(0, 1)
        return [out.transpose(1, 2).view_as(tokens)]

    def make_decoder(self, out_channels):
        from medssl.pretext.heads import LatentDecoder

        inner = LatentDecoder(self, 16, out_channels)
        inner.out_channels = out_channels
        run = inner.forward
        inner.forward = lambda pyramid, image: run(pyramid[0])
        return inner


def test_vit_encodes_visible_tokens_only():
    """A vit encodes only the tokens that are left."""
    torch.manual_seed(0)
    subject = MaskedVolume(SmallViT(), MaskedVolume.Config(masking="drop-tokens", mask_ratio=0.75))
    step = subject(subject.views(SmallRegion(phantoms())))
    step.loss.backward()
    tokens = 4 * 5 * 6
    assert subject.encoder.seen == [(2, tokens // 4, 16)]
    assert step.energy.shape == (2,)


def test_encoder_without_token_dropping_is_refused():
    """An encoder that cannot drop tokens is refused in words."""
    with pytest.raises(ConfigError, match="'tiny' has no `encode_visible`"):
        MaskedVolume(SmallEncoder(), MaskedVolume.Config(masking="drop-tokens"))
