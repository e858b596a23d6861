"""Names, presets and descriptions of encoders."""

import json
from types import SimpleNamespace

import pytest
import torch

from medssl.encoders.build import build_encoder, describe, encoder_names
from medssl.encoders.encoder import Encoder, EncoderDescription
from medssl.encoders.shipped import shipped_encoders
from medssl.errors import ConfigError, PluginError

PATCH = (32, 64, 32)  # fits every encoder that ships


def test_encoder_names_begin_with_default():
    first, *others = encoder_names()
    assert first == "dynunet"
    assert others == sorted(set(shipped_encoders()) - {"dynunet"})
    assert {"segresnet", "swin-unetr", "vit"} <= set(others)


@pytest.mark.parametrize("name", encoder_names())
def test_description_survives_json(name):
    description = describe(name, preset="tiny", patch=PATCH, in_channels=2)
    again = EncoderDescription.model_validate(json.loads(json.dumps(description.model_dump(mode="json"))))
    assert again == description
    torch.manual_seed(0)
    one = build_encoder(description)
    torch.manual_seed(0)
    other = build_encoder(again)
    assert one.description == description
    assert list(one.state_dict()) == list(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", encoder_names())
def test_describe_takes_auto_option_from_preset(name):
    plain = describe(name, preset="tiny", patch=PATCH)
    auto = describe(name, preset="tiny", patch=PATCH, options=dict.fromkeys(plain.options, "auto"))
    assert auto == plain


@pytest.mark.parametrize("name", encoder_names())
def test_describe_gives_larger_presets_more_features(name):
    widths = [describe(name, preset=preset, patch=(128, 128, 128)) for preset in ("tiny", "small", "base", "large")]
    with torch.device("meta"):
        sizes = [sum(weight.numel() for weight in build_encoder(description).parameters()) for description in widths]
    assert sizes == sorted(set(sizes))


def test_describe_suggests_name_for_unknown_one():
    with pytest.raises(ConfigError, match="no encoder 'dynunett'; did you mean 'dynunet'"):
        describe("dynunett", preset="tiny", patch=(32, 32, 32))
    with pytest.raises(ConfigError, match="no encoder preset 'tinny'; did you mean 'tiny'"):
        describe("dynunet", preset="tinny", patch=(32, 32, 32))
    with pytest.raises(ConfigError, match="no encoder 'resnet'"):
        build_encoder(EncoderDescription(name="resnet"))


def test_build_encoder_refuses_incomplete_description():
    with pytest.raises(ConfigError, match=r"encoder.options.filters: required, but not set"):
        build_encoder(EncoderDescription(name="dynunet", options={}))


class PlainEncoder(Encoder):
    """As a plugin's author writes one: a name, and a constructor that takes a description."""

    name = "plain"

    def __init__(self, description):
        super().__init__()
        self.description = description
        self.channels, self.strides = (description.options["width"],), ((2, 2, 2),)
        self.convolution = torch.nn.Conv3d(description.in_channels, description.options["width"], 2, stride=2)

    def forward(self, image):
        return [self.convolution(image)]


def test_build_encoder_of_plugin_by_name(monkeypatch):
    def load(name, *, known=()):
        if name != "plain":
            raise PluginError(f"No encoder named '{name}'.")
        return SimpleNamespace(cls=PlainEncoder)

    monkeypatch.setattr("medssl.plugins.load_encoder", load)
    monkeypatch.setattr("medssl.plugins.list_encoders", lambda: (SimpleNamespace(name="plain", status="ok"),))
    assert encoder_names()[-1] == "plain"
    encoder = build_encoder(describe("plain", options={"width": 3}, patch=(8, 8, 8)))
    assert encoder(torch.zeros(2, 1, 8, 8, 8))[0].shape == (2, 3, 4, 4, 4)
    with pytest.raises(ConfigError, match="no encoder 'plane'; did you mean 'plain'"):
        describe("plane", patch=(8, 8, 8))


def test_build_encoder_of_failing_plugin_keeps_its_error(monkeypatch):
    def load(name, *, known=()):
        raise PluginError("medssl-plain 0.1 fails on import: no module named 'x'.")

    monkeypatch.setattr("medssl.plugins.load_encoder", load)
    monkeypatch.setattr("medssl.plugins.list_encoders", lambda: (SimpleNamespace(name="plain", status="ok"),))
    with pytest.raises(PluginError, match="fails on import"):
        describe("plain", patch=(8, 8, 8))
