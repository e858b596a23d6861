import pytest
import torch
from small_world import SmallEncoder, phantoms
from torch import Tensor

from medssl.encoders.encoder import Decoder, Encoder, EncoderDescription
from medssl.pretext.heads import LatentDecoder, VectorHead, VoxelHead, pooled


class Shapes(Encoder):
    """An encoder as far as heads look at it."""

    def __init__(self, channels, strides):
        super().__init__()
        self.channels, self.strides = channels, strides
        self.description = EncoderDescription(name="shapes")

    def forward(self, image: Tensor) -> list[Tensor]:
        edges = [[edge // step for edge, step in zip(image.shape[2:], stride, strict=True)] for stride in self.strides]
        return [torch.randn(len(image), c, *e) for c, e in zip(self.channels, edges, strict=True)]

    def make_decoder(self, out_channels: int) -> Decoder:
        raise NotImplementedError


ENCODERS = [
    Shapes((4, 8, 16), ((1, 1, 1), (2, 2, 2), (4, 4, 4))),
    Shapes((4, 8, 16), ((1, 1, 1), (1, 2, 2), (2, 4, 4))),
    Shapes((4, 8, 16), ((2, 2, 2), (4, 4, 4), (8, 8, 8))),
]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_voxel_head_maps_at_image_resolution(encoder):
    """A voxel head gives a map at the resolution of the image."""
    image = torch.zeros(2, 1, 8, 16, 24)
    assert VoxelHead(encoder, 3)(encoder(image)).shape == (2, 3, 8, 16, 24)
    for level, stride in enumerate(encoder.strides):
        expected = tuple(edge // step for edge, step in zip((8, 16, 24), stride, strict=True))
        assert VoxelHead(encoder, 3, level=level)(encoder(image)).shape[2:] == expected


@pytest.mark.parametrize("encoder", ENCODERS)
def test_latent_decoder_reads_deepest_level_alone(encoder):
    """A latent decoder gives a volume from the deepest level alone."""
    latent = torch.randn(2, 5, *encoder(torch.zeros(2, 1, 8, 16, 24))[-1].shape[2:])
    assert LatentDecoder(encoder, 5)(latent).shape == (2, 1, 8, 16, 24)


def test_voxel_head_uses_every_level():
    encoder = ENCODERS[0]
    head = VoxelHead(encoder)
    pyramid = [level.requires_grad_() for level in encoder(torch.zeros(2, 1, 8, 8, 8))]
    head(pyramid).square().sum().backward()
    assert all(level.grad.abs().max() > 0 for level in pyramid)


def test_vector_head_concatenates_images_of_sample():
    """A vector head puts the images of one sample side by side."""
    encoder = SmallEncoder()
    head = VectorHead(encoder, 7, images=3)
    images = phantoms(6)
    together = head(encoder(images))
    assert together.shape == (2, 7)
    swapped = head(encoder(images[[3, 4, 5, 0, 1, 2]]))
    assert torch.allclose(together.flip(0), swapped, atol=1e-5)
    assert torch.allclose(pooled(encoder(images))[1], encoder(images)[-1][1].flatten(1).mean(1), atol=1e-6)
