"""An encoder and a decoder as one network that segments."""

from jaxtyping import Float
from torch import Tensor, nn

from medssl.encoders.encoder import Decoder, Encoder


class SegmentationNetwork(nn.Module):
    """Image to one map of logits per class."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b classes d h w"]:
        """Logits at the resolution of the image."""
        logits: Tensor = self.decoder(self.encoder(image), image)
        return logits
