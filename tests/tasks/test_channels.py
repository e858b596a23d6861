"""Images of several channels: a second channel that repeats the first changes no error, and another one does."""

import pytest
import torch
from small_world import SHAPE, SmallEncoder, SmallRegion, phantoms

from medssl.pretext.heads import VoxelHead
from medssl.pretext.reconstruction import scored_mean
from medssl.pretext.task import Step
from medssl.pretext.tiles import normalised_tiles
from medssl_tasks.denoising import Denoising
from medssl_tasks.masked_volume import MaskedVolume
from medssl_tasks.sparse_coding import from_cells, to_cells


def test_scored_mean_counts_every_channel():
    error, scored = torch.rand(2, 1, *SHAPE), torch.rand(2, 1, *SHAPE) > 0.5
    doubled = torch.cat([error, error], dim=1)
    assert torch.allclose(scored_mean(doubled, scored), scored_mean(error, scored))
    halves = torch.cat([error, 3 * error], dim=1)
    assert torch.allclose(scored_mean(halves, scored), 2 * scored_mean(error, scored))


@pytest.mark.parametrize("make", [MaskedVolume, Denoising])
def test_channels_are_reconstructed_with_equal_weight(make):
    torch.manual_seed(0)
    task = make(SmallEncoder(in_channels=2), make.Config())
    volume = torch.cat([phantoms(), phantoms(seed=5)], dim=1)
    views = task.views(SmallRegion(volume))
    assert task.exported_decoder().out_channels == 2
    task.decoder.forward = lambda pyramid, image: views["target"] + torch.tensor([1.0, 3.0]).view(1, 2, 1, 1, 1)
    scored = views["scored"].expand_as(volume).float()
    expected = (scored * torch.tensor([1.0, 9.0]).view(1, 2, 1, 1, 1)).flatten(1).sum(1) / scored.flatten(1).sum(1)
    assert task(views).energy.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_from_cells_inverts_to_cells_of_channels():
    """Cells of several channels come back as the volume."""
    volume = torch.randn(2, 3, *SHAPE)
    cells = to_cells(volume, (2, 4, 3))
    assert cells.shape == (2, 8 * 5 * 8, 72)
    assert torch.equal(from_cells(cells, (2, 4, 3), like=volume), volume)


def test_tiles_are_normalised_per_channel():
    """Each channel of a tile is normalised by itself."""
    tiles = torch.randn(2, 4, 1, 4, 5, 6)
    both = normalised_tiles(torch.cat([tiles, 7 * tiles + 100], dim=2))
    assert torch.allclose(both[:, :, :1], both[:, :, 1:], atol=1e-4)


def test_voxel_head_defaults_to_image_channels():
    """A head gives as many channels as the image has unless said otherwise."""
    encoder = SmallEncoder(in_channels=3)
    pyramid = encoder(torch.randn(2, 3, *SHAPE))
    assert VoxelHead(encoder)(pyramid).shape[1] == 3
    assert VoxelHead(encoder, 5)(pyramid).shape[1] == 5


def test_picture_shows_first_channel():
    volume = torch.randn(2, 3, *SHAPE)
    step = Step(torch.zeros(()), torch.zeros(2), pictures={"scan": volume})
    assert torch.equal(step.pictures["scan"], volume[:, :1])
