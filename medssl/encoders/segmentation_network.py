"""An encoder and a decoder as one network that segments."""

from jaxtyping import Float
from torch import Tensor, nn

from medssl.encoders.encoder import Decoder, Encoder
from medssl.shapes import Shape3D


class SegmentationNetwork(nn.Module):
    """Image to one map of logits per class."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @property
    def required_divisor(self) -> Shape3D:
        """What the edges (D, H, W) of an input must be multiples of."""
        return self.encoder.divisor

    def forward(self, image: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b classes d h w"]:
        """Logits at the resolution of the image."""
        logits: Tensor = self.decoder(self.encoder(image), image)
        return logits
