"""Names, presets and descriptions of encoders."""

import json

import pytest
import torch

from medssl.encoders.build import build_encoder, describe, encoder_names
from medssl.encoders.encoder import EncoderDescription
from medssl.errors import ConfigError

PATCHES = {"dynunet": (16, 24, 16), "segresnet": (16, 24, 16), "swin-unetr": (32, 64, 32)}


def test_the_default_comes_first():
    assert encoder_names() == ("dynunet", "segresnet", "swin-unetr")


@pytest.mark.parametrize("name", encoder_names())
def test_a_description_survives_json_and_builds_the_same_network(name):
    description = describe(name, preset="tiny", patch=PATCHES[name], in_channels=2)
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
def test_auto_as_an_option_means_the_preset(name):
    plain = describe(name, preset="tiny", patch=PATCHES[name])
    auto = describe(name, preset="tiny", patch=PATCHES[name], options=dict.fromkeys(plain.options, "auto"))
    assert auto == plain


@pytest.mark.parametrize("name", encoder_names())
def test_larger_presets_have_more_features(name):
    widths = [describe(name, preset=preset, patch=(128, 128, 128)) for preset in ("tiny", "small", "base", "large")]
    with torch.device("meta"):
        sizes = [sum(weight.numel() for weight in build_encoder(description).parameters()) for description in widths]
    assert sizes == sorted(set(sizes))


def test_unknown_names_come_with_a_suggestion():
    with pytest.raises(ConfigError, match="no encoder 'dynunett'; did you mean 'dynunet'"):
        describe("dynunett", preset="tiny", patch=(32, 32, 32))
    with pytest.raises(ConfigError, match="no encoder preset 'tinny'; did you mean 'tiny'"):
        describe("dynunet", preset="tinny", patch=(32, 32, 32))
    with pytest.raises(ConfigError, match="no encoder 'resnet'"):
        build_encoder(EncoderDescription(name="resnet"))


def test_a_description_that_lacks_an_option_is_refused():
    with pytest.raises(ConfigError, match="filters is missing; kernel_size is missing"):
        build_encoder(EncoderDescription(name="dynunet", options={}))
