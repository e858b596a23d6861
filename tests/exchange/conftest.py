"""Small finished runs to export."""

import pytest
from small_networks import POLICY, SIZES, encoder_of, stirred

from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.weights import save_encoder, save_network


@pytest.fixture
def pretrained(tmp_path):
    """Makes a finished pretraining of an encoder, with or without a decoder; returns folder, encoder and decoder."""

    def make(name="dynunet", *, decoder=True, **more):
        encoder = encoder_of(name, **more)
        trained = stirred(encoder.make_decoder(1)) if decoder else None
        save_encoder(
            tmp_path / "run", encoder, trained, metadata={"task": "masked-volume", "patch": list(SIZES[name][1])}
        )
        return tmp_path / "run", encoder, trained

    return make


@pytest.fixture
def finetuned(tmp_path):
    """Makes a finished fine-tuning; returns folder and network."""

    def make(name="dynunet", **facts):
        encoder = encoder_of(name)
        network = SegmentationNetwork(encoder, stirred(encoder.make_decoder(3)))
        stated = {
            "label_names": {1: "anterior", 2: "posterior"},
            "patch": list(SIZES[name][1]),
            "overlap": 0.25,
            "store_policy": POLICY,
            "modalities": ["MR"],
        }
        save_network(tmp_path / "model", network, metadata=stated | facts)
        return tmp_path / "model", network.eval()

    return make
