"""The kit for encoders passes those that ship and catches what is wrong, each fault with the sentence that fixes it."""

import numpy as np
import pytest
import torch
from torch import nn

import medssl
from medssl.conformance import encoder_checks as checks
from medssl.conformance.tiny_encoder import TinyDecoder
from medssl.conformance.workbench import EncoderBench
from medssl.encoders.build import encoder_class
from medssl.errors import PluginError
from medssl.testing import parametrize_with_encoder_checks, run_encoder_checks


class Good(medssl.Encoder):
    """Two levels of a convolution and a norm."""

    name = "good"

    def __init__(self, description):
        super().__init__()
        self.description = description
        self.channels, self.strides = (4, 6), ((1, 1, 1), (2, 2, 2))
        self.fine = nn.Sequential(nn.Conv3d(description.in_channels, 4, 3, padding=1), self.norm(4))
        self.coarse = nn.Sequential(nn.Conv3d(4, 6, 2, stride=2), self.norm(6))

    def norm(self, channels):
        return nn.InstanceNorm3d(channels, affine=True)

    def forward(self, image):
        fine = self.fine(image)
        return [fine, self.coarse(fine)]

    def make_decoder(self, out_channels):
        return TinyDecoder(self.channels, out_channels)


class StatesOtherStrides(Good):
    """Its strides are not those of its maps."""

    def __init__(self, description):
        super().__init__(description)
        self.strides = ((1, 1, 1), (4, 4, 4))


class TransposesAxes(Good):
    """Its maps have their edges in another order."""

    def forward(self, image):
        return [level.transpose(2, 4) for level in super().forward(image)]


class GivesTheCoarsestFirst(Good):
    """Its pyramid stands on its head."""

    def __init__(self, description):
        super().__init__(description)
        self.channels, self.strides = (6, 4), ((2, 2, 2), (1, 1, 1))

    def forward(self, image):
        return super().forward(image)[::-1]


class LooksAcrossTheBatch(Good):
    """It has batch normalisation."""

    def norm(self, channels):
        return nn.BatchNorm3d(channels)


class HasAnUnusedLayer(Good):
    """A layer of the decoder lies in it."""

    def __init__(self, description):
        super().__init__(description)
        self.up = nn.Conv3d(6, 4, 1)


class DrawsFromNumpy(Good):
    """Its weights come from a generator that nobody seeds."""

    def __init__(self, description):
        super().__init__(description)
        self.fine[0].weight.data = torch.from_numpy(np.random.standard_normal(self.fine[0].weight.shape)).float()


class SetsTheThreads(Good):
    """It changes what others rely on."""

    def __init__(self, description):
        super().__init__(description)
        torch.backends.cudnn.benchmark = True


class WorksInSinglePrecision(Good):
    """It makes float32 tensors of its own."""

    def forward(self, image):
        return [level + torch.ones(1, dtype=torch.float32) for level in super().forward(image.float())]


class KeepsStateInAnAttribute(Good):
    """What it learns is not in its state."""

    def __init__(self, description):
        super().__init__(description)
        self.factor = torch.rand(()).item()

    def forward(self, image):
        return [level * (1 + self.factor) for level in super().forward(image)]


class SharesItsDecoder(Good):
    """Every call gives the same decoder."""

    def make_decoder(self, out_channels):
        if not hasattr(self, "_decoder"):
            object.__setattr__(self, "_decoder", super().make_decoder(out_channels))
        return self._decoder


class WritesToTheImage(Good):
    """It normalises in place."""

    def forward(self, image):
        return super().forward(image.mul_(0.5) if not torch.is_grad_enabled() else image)


class ForgetsAnOption(Good):
    """Its description does not hold what it was built with."""

    def __init__(self, description):
        super().__init__(description)
        self.extra = nn.Parameter(torch.zeros(description.options.get("width", 3)))
        self.description = medssl.EncoderDescription(name="good", in_channels=description.in_channels)

    def forward(self, image):
        return [level + self.extra.mean() for level in super().forward(image)]


class ShowsHiddenTokens(Good):
    """It offers to leave tokens out, and does not."""

    def encode_visible(self, image, hidden):
        return self(image)


FAULTS = [
    (StatesOtherStrides, checks.pyramid_matches_its_description, "but channels and strides state"),
    (TransposesAxes, checks.pyramid_matches_its_description, "but channels and strides state"),
    (GivesTheCoarsestFirst, checks.pyramid_matches_its_description, "from the finest to the coarsest"),
    (LooksAcrossTheBatch, checks.samples_are_independent, r"depend on the rest of the batch \(BatchNorm3d\)"),
    (HasAnUnusedLayer, checks.every_parameter_learns, r"2 parameters get no gradient \(up.weight"),
    (DrawsFromNumpy, checks.global_state_is_unchanged, "Draw weights from torch's generator alone"),
    (SetsTheThreads, checks.global_state_is_unchanged, "Leave global state alone"),
    (WritesToTheImage, checks.global_state_is_unchanged, "forward writes to the image"),
    (WorksInSinglePrecision, checks.all_precisions_work, "in float64"),
    (KeepsStateInAnAttribute, checks.state_dict_restores_the_encoder, "Keep all state in parameters and buffers"),
    (SharesItsDecoder, checks.decoder_fits, "Build them anew each time"),
    (ShowsHiddenTokens, checks.hidden_tokens_are_ignored, "depend on hidden voxels"),
]


@pytest.mark.parametrize(("cls", "check", "sentence"), FAULTS, ids=[cls.__name__ for cls, _, _ in FAULTS])
def test_kit_catches_each_encoder_fault(cls, check, sentence, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    with pytest.raises(PluginError, match=sentence):
        check(EncoderBench(cls))


def test_forgotten_option_in_description_is_caught():
    with pytest.raises(PluginError, match="Keep every option in it"):
        checks.describes_itself(EncoderBench(ForgetsAnOption, options={"width": 5}))


@parametrize_with_encoder_checks([Good])
def test_good_encoder_passes(check):
    check()


@pytest.mark.parametrize("name", ["dynunet", "segresnet", "vit"])
def test_shipped_encoders_pass(name):
    problems = {outcome.name: outcome.problem for outcome in run_encoder_checks(encoder_class(name))}
    assert not {check: problem for check, problem in problems.items() if problem}


def test_encoder_checks_are_listed_and_documented():
    assert len({check.__name__ for check in checks.ENCODER_CHECKS}) == 9
    assert all(check.__doc__ for check in checks.ENCODER_CHECKS)
